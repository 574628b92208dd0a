package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/slipway-k8s/slipway/cmd/internal/cli"
)

var update = flag.Bool("update", false, "rewrite the expected outputs in testdata/script")

// The scripts run these programs:
//
//	slipway    the real main
//	reveal     is slipway, for a command that exists to print a secret
//	nobody     drops root's rights, then is slipway
//	tree       lists what is below a directory, with modes
//
// and these commands:
//
//	exits N COMMAND...   runs a command and wants exit code N
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": slipway, "reveal": reveal, "nobody": nobody, "tree": tree})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "../../../testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			return os.WriteFile(filepath.Join(env.WorkDir, "facts.yaml"), []byte(facts), 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// facts describe the machine that every script renders for, so that its output is the same on all.
const facts = `hostname: cp-1
defaultAddresses: [192.0.2.10]
cgroupDriver: cgroupfs
executable: /usr/local/bin/slipway
`

func slipway() {
	out, errs := &guard{to: os.Stdout}, &guard{to: os.Stderr}
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: out, Err: errs, Environ: os.Environ()}))
}

func reveal() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}))
}

// guard ends the program that prints a secret.
type guard struct {
	to   io.Writer
	last []byte // the end of what was written, as a secret may come in two pieces
}

// secrets are what only secret files contain. The exit code of who prints one is none that slipway has.
var secrets = []string{"PRIVATE KEY", "client-key-data", "certificate-authority-data", "LS0tLS1CRUdJTi"}

const leaked = 97

func (g *guard) Write(p []byte) (int, error) {
	g.last = append(g.last, p...)
	for _, s := range secrets {
		if bytes.Contains(g.last, []byte(s)) {
			fmt.Fprintf(os.Stderr, "a secret was printed: %s\n", s)
			os.Exit(leaked)
		}
	}
	g.last = g.last[max(0, len(g.last)-64):]
	return g.to.Write(p)
}

// nobody gives up root, for good, before anything is looked at. Without root there is nothing to give up.
func nobody() {
	const id = 65534
	if os.Geteuid() == 0 {
		if err := errors.Join(syscall.Chdir("/"), syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id)); err != nil {
			fmt.Fprintln(os.Stderr, "nobody:", err)
			os.Exit(1)
		}
	}
	slipway()
}

func tree() {
	root := os.Args[1]
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Println(info.Mode(), "."+path[len(root):])
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "tree:", err)
		os.Exit(1)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
