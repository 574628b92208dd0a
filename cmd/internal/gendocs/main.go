// Command gendocs writes a page of documentation for every slipway command.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/slipway-k8s/slipway/cmd/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendocs DIRECTORY")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "gendocs: %v\n", err)
		os.Exit(1)
	}
}

// generate writes the pages into dir, and removes those of commands that are gone.
func generate(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory of the pages: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "slipway*.md"))
	if err != nil {
		return fmt.Errorf("listing the pages in %q: %w", dir, err)
	}
	for _, page := range old {
		if err := os.Remove(page); err != nil {
			return fmt.Errorf("removing an old page: %w", err)
		}
	}
	root := cli.NewRoot(cli.Streams{In: strings.NewReader(""), Out: os.Stdout, Err: os.Stderr})
	root.InitDefaultCompletionCmd()
	prepare(root)
	if err := doc.GenMarkdownTree(root, dir); err != nil {
		return fmt.Errorf("writing the pages into %q: %w", dir, err)
	}
	return nil
}

// prepare makes the texts fit for pages that are the same for the same commands: without a date, and with the indented
// lists of the help texts as blocks that Markdown leaves alone.
func prepare(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	if cmd.CommandPath() == "slipway init phase" {
		onePage(cmd)
	}
	cmd.Long = strings.ReplaceAll(cmd.Long, "\n  ", "\n      ")
	for _, c := range cmd.Commands() {
		prepare(c)
	}
}

// onePage puts what there is to say about all phases on the page of their group, because their flags are those of init:
// forty pages would tell the same.
func onePage(group *cobra.Command) {
	var b strings.Builder
	b.WriteString(group.Short + ". Each takes the flags of [slipway init](slipway_init.md), and checks for itself what it needs on\n" +
		"disk. A group's name runs every phase in it; the word all behind it does the same.\n")
	describe(&b, group, group.CommandPath()+" ")
	group.Long = b.String()
}

func describe(b *strings.Builder, group *cobra.Command, prefix string) {
	for _, c := range group.Commands() {
		c.Hidden = true // no page of its own
		if c.Name() == "all" {
			continue
		}
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		fmt.Fprintf(b, "\n#### %s\n\n%s\n", strings.TrimPrefix(c.CommandPath(), prefix), text)
		describe(b, c, prefix)
	}
}
