package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-k8s/slipway/phases"
)

// noArguments is cobra.NoArgs in the words of a user who mistyped a command's name, or left "phase" out.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasAvailableSubCommands() {
		return fmt.Errorf("%s takes no arguments: %q is too much", cmd.CommandPath(), args[0])
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	if likely := suggestions(cmd, args[0]); len(likely) > 0 {
		return withHint(err, "did you mean: "+strings.Join(likely, ", "))
	}
	return withHint(err, cmd.CommandPath()+" --help lists its commands")
}

// suggestions are the commands that a user may have meant, from cmd down to the first level that has any.
func suggestions(cmd *cobra.Command, typed string) []string {
	cmd.SuggestionsMinimumDistance = 2 // two letters wrong or missing is a typing error, three is another word
	var likely []string
	for _, name := range cmd.SuggestionsFor(typed) {
		likely = append(likely, cmd.CommandPath()+" "+name)
	}
	for _, sub := range cmd.Commands() {
		if len(likely) > 0 {
			break
		}
		likely = suggestions(sub, typed)
	}
	return likely
}

// atMostOne wants an argument, or none.
func atMostOne(what, example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= 1 {
			return nil
		}
		return withHint(fmt.Errorf("%s takes at most one %s, not %d arguments", cmd.CommandPath(), what, len(args)), "for example: "+example)
	}
}

// someArguments wants one argument or more.
func someArguments(what, example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return nil
		}
		return withHint(fmt.Errorf("%s takes at least one %s", cmd.CommandPath(), what), "for example: "+example)
	}
}

// flagError is what pflag says about a flag, with the way to the right one.
func flagError(cmd *cobra.Command, err error) error {
	if missing := (*pflag.NotExistError)(nil); errors.As(err, &missing) {
		return withHint(err, cmd.CommandPath()+" --help lists its flags")
	}
	if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
		return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, valueError(invalid))
	}
	return err
}

// valueError says what is wrong with a flag's value, without the flag's name.
func valueError(invalid *pflag.InvalidValueError) error {
	cause := invalid.Unwrap()
	switch number := (*strconv.NumError)(nil); {
	case errors.As(cause, &number) && invalid.GetFlag().Value.Type() == "bool":
		return fmt.Errorf("%q is neither true nor false", invalid.GetValue())
	case errors.As(cause, &number):
		return fmt.Errorf("%q is not a whole number", invalid.GetValue())
	}
	return cause
}

// completeFlags offers the values of flags that have a list of them, here and in all commands below.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		var values []string
		if out, ok := f.Value.(*output); ok {
			values = out.allowed
		} else if f.Name == "skip-phases" {
			initWorkflow().Walk(func(name string, _ int, _ phases.Phase) { values = append(values, name) })
		} else {
			return
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag is the command's own, and visited once
		}
	})
	for _, sub := range cmd.Commands() {
		completeFlags(sub)
	}
}
