package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/joincommand"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

func newToken(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "The bootstrap tokens with which nodes join", Args: noArguments,
		Long: "A bootstrap token is what a machine shows to be let in as a node: abcdef.0123456789abcdef, an id that may be known and a secret.\n" +
			"In the cluster it is the Secret kube-system/bootstrap-token-abcdef. init makes one that is good for a day.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(std, g), newTokenList(std, g), newTokenDelete(std, g), newTokenGenerate(std))
	return cmd
}

// tokenAccess are the flags of the commands that talk to the API server.
type tokenAccess struct {
	kubeconfig string
	preview    bool
}

func (a *tokenAccess) register(flags *pflag.FlagSet) {
	flags.StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of an administrator (default /etc/kubernetes/admin.conf)")
	flags.BoolVar(&a.preview, "dry-run", false, "show what would be done in the cluster, and do nothing")
}

func (a *tokenAccess) path(g *global) string {
	if a.kubeconfig == "" {
		return g.paths().Kubeconfig("admin.conf")
	}
	return a.kubeconfig
}

// apiPatience is how long a command goes on asking an API server that does not answer.
const apiPatience = 10 * time.Second

// open returns the API, and a context that ends when it has had its time.
func (a *tokenAccess) open(ctx context.Context, g *global) (kubeapi.API, context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, apiPatience, fmt.Errorf("gave up after %s", apiPatience))
	if a.preview {
		return kubeapi.Narrator{}, ctx, cancel, nil
	}
	path, err := filepath.Abs(a.path(g))
	if err != nil {
		cancel()
		return nil, nil, nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return kubeapi.NewLive(kubeapi.Options{Admin: path, SuperAdmin: path, Read: os.ReadFile}), ctx, cancel, nil
}

// told prints what the API reports.
func told(out io.Writer) func(kubeapi.Report) {
	return func(r kubeapi.Report) { fmt.Fprintln(out, r.Text) }
}

// unreported is for what is only read, and for what a command says in its own words.
func unreported(kubeapi.Report) {}

type tokenCreateFlags struct {
	tokenAccess
	file, description string
	ttl               time.Duration
	usages, groups    []string
	join              bool
	certificateKey    string
	flags             *pflag.FlagSet
}

func newTokenCreate(std Streams, g *global) *cobra.Command {
	var f tokenCreateFlags
	cmd := &cobra.Command{
		Use: "create [TOKEN]", Short: "Make a token, and print it", Args: atMostOne("token", "slipway token create abcdef.0123456789abcdef"),
		Long: "create puts a token into the cluster and prints it; without TOKEN it makes one up. With --print-join-command it prints the\n" +
			"command with which a machine joins instead.",
		Example: "  slipway token create --print-join-command\n  slipway token create --ttl 2h --description 'rack 4'",
		RunE:    func(cmd *cobra.Command, args []string) error { return runTokenCreate(cmd.Context(), std, g, f, args) },
	}
	f.flags = cmd.Flags()
	f.flags.DurationVar(&f.ttl, "ttl", bootstraptoken.DefaultTTL, "`TIME` after which it is removed, 0 for never")
	f.flags.StringSliceVar(&f.usages, "usages", bootstraptoken.DefaultUsages(), "what it is good for: `USAGES` signing, authentication")
	f.flags.StringSliceVar(&f.groups, "groups", bootstraptoken.DefaultGroups(), "`GROUPS` that its holder is in: system:bootstrappers:NAME")
	f.flags.StringVar(&f.description, "description", "", "`TEXT` that says what it is for")
	f.flags.BoolVar(&f.join, "print-join-command", false, "print the kubeadm join command with it")
	f.flags.StringVar(&f.certificateKey, "certificate-key", "", "`KEY` that slipway init phase upload-certs printed: the command joins a control-plane node")
	f.flags.StringVar(&f.file, "config", "", "take the tokens from the InitConfiguration in `FILE`, - for standard input; other flags override the first one's fields")
	f.register(f.flags)
	return cmd
}

func runTokenCreate(ctx context.Context, std Streams, g *global, f tokenCreateFlags, args []string) error {
	if f.certificateKey != "" {
		if !f.join {
			return errors.New("--certificate-key has no effect without --print-join-command: add it")
		}
		if key, err := hex.DecodeString(f.certificateKey); err != nil || len(key) != 32 {
			return errors.New("--certificate-key: it is not 64 hexadecimal digits; slipway init phase upload-certs --upload-certs makes one and uploads the certificates anew")
		}
	}
	tokens, err := f.tokens(std, g, args)
	if err != nil {
		return err
	}
	var cluster document.Cluster
	if f.join { // before any effect
		if cluster, err = readCluster(f.path(g)); err != nil {
			return err
		}
	}
	api, ctx, cancel, err := f.open(ctx, g)
	if err != nil {
		return err
	}
	defer cancel()
	report := unreported
	if f.preview {
		report = told(std.Err)
	}
	for _, t := range tokens {
		err := api.Create(ctx, bootstraptoken.Secret(t, bootstraptoken.Expiration(t, g.now())), report)
		if errors.Is(err, kubeapi.ErrExists) {
			return existing(ctx, api, t.ID, g.now())
		}
		if err != nil {
			return err
		}
	}
	first := bootstraptoken.Text(tokens[0])
	if !f.join {
		fmt.Fprintln(std.Out, first)
		return nil
	}
	line, err := joincommand.Worker(cluster, first)
	if err != nil {
		return err
	}
	if f.certificateKey != "" {
		line = joincommand.ControlPlane(line, f.certificateKey)
	}
	fmt.Fprintln(std.Out, line)
	return nil
}

// tokens are those of the file, or one, with what the flags say.
func (f *tokenCreateFlags) tokens(std Streams, g *global, args []string) ([]config.BootstrapToken, error) {
	tokens := []config.BootstrapToken{{}}
	if f.file != "" {
		c := configFlags{file: f.file, flags: f.flags}
		cluster, err := c.load(std, g)
		if err != nil {
			return nil, err
		}
		tokens = cluster.BootstrapTokens
	}
	first := &tokens[0]
	use := func(name string) bool { return f.file == "" || f.flags.Changed(name) }
	if use("ttl") {
		first.TTL, first.Expires = f.ttl, time.Time{}
	}
	if use("usages") {
		first.Usages = f.usages
	}
	if use("groups") {
		first.Groups = f.groups
	}
	if use("description") {
		first.Description = f.description
	}
	if f.file == "" && !f.flags.Changed("groups") && !strings.Contains(strings.Join(first.Usages, ","), "authentication") {
		first.Groups = nil
	}
	if first.TTL < 0 {
		return nil, fmt.Errorf("--ttl: %s: wanted a duration such as 2h, or 0 for a token that never expires", first.TTL)
	}
	if err := bootstraptoken.Check(first.Usages, first.Groups); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		var err error
		if first.ID, first.Secret, err = bootstraptoken.Parse(args[0]); err != nil {
			return nil, fmt.Errorf("the token: %w", err)
		}
	}
	for i := range tokens {
		if tokens[i].ID == "" {
			tokens[i].ID, tokens[i].Secret = bootstraptoken.Generate()
		}
	}
	return tokens, nil
}

// existing explains why a token cannot be made.
func existing(ctx context.Context, api kubeapi.API, id string, now time.Time) error {
	err := fmt.Errorf("a token with the id %s is in the cluster already", id)
	if o, readErr := api.Get(ctx, bootstraptoken.Ref(id)); readErr == nil {
		if t, readErr := bootstraptoken.FromSecret(o); readErr == nil && !t.Expires.IsZero() && !t.Expires.After(now) {
			err = fmt.Errorf("%w; it expired at %s and is about to be removed", err, t.Expires.UTC().Format(time.RFC3339))
		}
	}
	return withHint(err, "another one: slipway token create\nremove it:   slipway token delete "+id)
}

func readCluster(path string) (document.Cluster, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return document.Cluster{}, fmt.Errorf("reading where the cluster is: %w", err)
	}
	cluster, _, err := document.Load(data, filepath.Dir(path), os.ReadFile)
	if err != nil {
		return document.Cluster{}, fmt.Errorf("kubeconfig %q: %w", path, err)
	}
	return cluster, nil
}

func newTokenDelete(std Streams, g *global) *cobra.Command {
	var f tokenAccess
	cmd := &cobra.Command{
		Use: "delete TOKEN...", Short: "Remove tokens, by their ids", Args: someArguments("token or id of one", "slipway token delete abcdef"),
		Long: "delete removes tokens, named by id or whole. A machine that has joined with one stays a node.",
		RunE: func(cmd *cobra.Command, args []string) error { return runTokenDelete(cmd.Context(), std, g, f, args) },
	}
	f.register(cmd.Flags())
	return cmd
}

func runTokenDelete(ctx context.Context, std Streams, g *global, f tokenAccess, args []string) error {
	var ids []string
	var problems []error
	for i, arg := range args {
		id, err := bootstraptoken.ParseID(arg)
		if err != nil {
			problems = append(problems, fmt.Errorf("argument %d: %w", i+1, err)) // what it is may be a secret
		}
		ids = append(ids, id)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	api, ctx, cancel, err := f.open(ctx, g)
	if err != nil {
		return err
	}
	defer cancel()
	for _, id := range ids {
		done := func(kubeapi.Report) { fmt.Fprintf(std.Out, "bootstrap token %q deleted\n", id) }
		if f.preview {
			done = told(std.Out)
		}
		err := api.Delete(ctx, bootstraptoken.Ref(id), done)
		if errors.Is(err, kubeapi.ErrNotFound) {
			err = withHint(fmt.Errorf("no token has the id %s; an expired one is removed by itself", id), "slipway token list shows those that are there")
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func newTokenGenerate(std Streams) *cobra.Command {
	return &cobra.Command{
		Use: "generate", Short: "Print a new token, without putting it into a cluster", Args: noArguments,
		Long: "generate makes up a token for init --token, for bootstrapTokens in a configuration file, or for token create.",
		RunE: func(*cobra.Command, []string) error {
			id, secret := bootstraptoken.Generate()
			fmt.Fprintln(std.Out, id+"."+secret)
			return nil
		},
	}
}

func newTokenList(std Streams, g *global) *cobra.Command {
	var f tokenAccess
	var out output
	cmd := &cobra.Command{
		Use: "list", Short: "Show the tokens that are in the cluster", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTokenList(cmd.Context(), std, g, f, out) },
	}
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of an administrator (default /etc/kubernetes/admin.conf)")
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// listedToken is a token as kubeadm token list prints it.
type listedToken struct {
	APIVersion  string   `json:"apiVersion"`
	Kind        string   `json:"kind"`
	Token       string   `json:"token"`
	Description string   `json:"description,omitempty"`
	Expires     string   `json:"expires,omitempty"`
	Usages      []string `json:"usages,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

func runTokenList(ctx context.Context, std Streams, g *global, f tokenAccess, out output) error {
	api, ctx, cancel, err := f.open(ctx, g)
	if err != nil {
		return err
	}
	defer cancel()
	secrets, err := api.List(ctx, bootstraptoken.Ref(""), bootstraptoken.Selector)
	if err != nil {
		return err
	}
	var rows [][]string
	for i, s := range secrets {
		t, err := bootstraptoken.FromSecret(&s)
		if err != nil {
			fmt.Fprintf(std.Err, "warning: %v\n", err)
			continue
		}
		listed := listedToken{"output.kubeadm.k8s.io/v1alpha3", "BootstrapToken", bootstraptoken.Text(t), t.Description, "", t.Usages, t.Groups}
		if !t.Expires.IsZero() {
			listed.Expires = t.Expires.UTC().Format(time.RFC3339)
		}
		switch out.format {
		case "json":
			err = printJSON(std.Out, listed)
		case "yaml":
			if i > 0 {
				fmt.Fprintln(std.Out, "---")
			}
			err = printYAML(std.Out, listed)
		default:
			rows = append(rows, tokenRow(listed, t.Expires, g.now()))
		}
		if err != nil {
			return err
		}
	}
	switch {
	case out.format != "text":
		return nil
	case len(rows) == 0:
		fmt.Fprintln(std.Err, "there are no tokens: slipway token create makes one")
		return nil
	}
	return table(std.Out, []string{"TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"}, rows)
}

func tokenRow(t listedToken, expires, now time.Time) []string {
	ttl, end := "<forever>", "<never>"
	if !expires.IsZero() {
		ttl, end = duration.ShortHumanDuration(expires.Sub(now)), t.Expires
		if !expires.After(now) {
			ttl = "<expired>"
		}
	}
	none := func(s string) string {
		if s == "" {
			return "<none>"
		}
		return s
	}
	return []string{t.Token, ttl, end, none(strings.Join(t.Usages, ",")), none(t.Description), none(strings.Join(t.Groups, ","))}
}
