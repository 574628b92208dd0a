package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// execFlags are those of exec.
type execFlags struct {
	stdin, tty        bool
	container, socket string
}

func newExec(std Streams, g *global) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use: "exec POD [-c CONTAINER] -- COMMAND [ARGUMENT...]", Short: "Run a command in a container", Args: podAndCommand,
		Long: "exec runs a command in a running container of a static pod, as the container's user and with its environment, and ends with the\n" +
			"command's exit code. " + podHelp + "\n\n" +
			"It asks the container runtime itself: neither the supervisor nor the API server needs to run. Signals go to the command; a\n" +
			"second one kills it.",
		Example: "  slipway exec etcd -- etcdctl endpoint health\n" +
			"  slipway exec -it web -c nginx -- sh\n" +
			"  slipway exec -i etcd -- tar -x -C /tmp < files.tar",
		ValidArgsFunction: completePods(g, 1, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), std, g, f, args[0], args[cmd.ArgsLenAtDash():])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.stdin, "stdin", "i", false, "pass standard input on to the command")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal, of the size of this one")
	flags.StringVarP(&f.container, "container", "c", "", "the `CONTAINER`, where the pod has several")
	flags.StringVar(&f.socket, "cri-socket", "", "`SOCKET` of the runtime; default: the one that the supervisor uses, else slipway's own containerd")
	if err := cmd.RegisterFlagCompletionFunc("container", completeContainers(g)); err != nil {
		panic(err) // the flag is there, and this is the first function for it
	}
	return cmd
}

// podAndCommand wants a pod, and a command behind two dashes, so that its flags are not ours.
func podAndCommand(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash == 1 && len(args) > 1 {
		return nil
	}
	return withHint(fmt.Errorf("%s takes a pod, and behind -- a command", cmd.CommandPath()), "for example: slipway exec etcd -- etcdctl member list")
}

// running is a container in which a command can be run.
type running struct {
	pod           podName
	container, id string
}

func runExec(ctx context.Context, std Streams, g *global, f execFlags, typed string, command []string) error {
	if f.tty && !isTerminal(std.In) {
		return withHint(errors.New("--tty: standard input is not a terminal"), "leave -t out to run the command without one")
	}
	socket := host.SocketPath(cmp.Or(f.socket, g.places(ctx).Runtime))
	containers, err := runningContainers(ctx, g, socket)
	if err != nil {
		return withHint(err, "the runtime is looked for at "+socket+"; name another one with --cri-socket")
	}
	to, err := findContainer(containers, typed, f.container)
	if err != nil {
		return notThere(ctx, g, typed, f.container, err)
	}
	e := containerd.Exec{ContainerID: to.id, Command: command, Stdout: std.Out, Stderr: std.Err, Terminal: f.tty, Dir: filepath.Dir(g.paths().SupervisorSocket)}
	if f.stdin || f.tty {
		e.Stdin = std.In
	}
	signals, stop := signalsFor(f.tty)
	defer stop()
	e.Signals = signals
	if f.tty {
		restore, sizes, err := takeTerminal(std)
		if err != nil {
			return err
		}
		defer restore()
		e.Sizes = sizes
	}
	code, err := e.Run(context.WithoutCancel(ctx), socket) // what ends ctx is a signal, which the command gets
	switch {
	case errors.Is(err, containerd.ErrNotRunning):
		return fmt.Errorf("container %s of pod %s has just ended", to.container, to.pod.full())
	case err != nil:
		return err
	case code != 0:
		return &exit{code: code}
	}
	return nil
}

// runningContainers asks the runtime for the running containers of static pods of this instance.
func runningContainers(ctx context.Context, g *global, socket string) ([]running, error) {
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	sandboxes, err := client.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	ours := map[string]bool{}
	for _, sb := range sandboxes {
		notes := sb.GetAnnotations()
		ours[sb.GetId()] = notes[podspec.AnnotationSpecHash] != "" && notes[podspec.AnnotationInstance] == g.instance
	}
	containers, err := client.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return nil, err
	}
	nodes := map[string]string{} // by full name, where the supervisor tells
	if list, err := g.supervisor().pods(ctx); err == nil {
		for _, p := range podNames(list) {
			nodes[p.full()] = p.node
		}
	}
	var out []running
	for _, c := range containers {
		if !ours[c.GetPodSandboxId()] {
			continue
		}
		pod := podName{namespace: c.GetLabels()[podspec.LabelPodNamespace], name: c.GetLabels()[podspec.LabelPodName]}
		pod.node = nodes[pod.full()]
		out = append(out, running{pod, c.GetMetadata().GetName(), c.GetId()})
	}
	return out, nil
}

// findContainer returns the one running container that is meant.
func findContainer(all []running, typed, container string) (running, error) {
	var pods []podName
	for _, r := range all {
		if !slices.Contains(pods, r.pod) {
			pods = append(pods, r.pod)
		}
	}
	pod, err := findPod(typed, pods)
	if err != nil {
		return running{}, err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(r running) bool { return r.pod != pod })
	var names []string
	for _, r := range all {
		names = append(names, r.container)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if container != "" {
		all = slices.DeleteFunc(all, func(r running) bool { return r.container != container })
	}
	switch {
	case len(all) == 0:
		return running{}, withHint(fmt.Errorf("no container %q of pod %s runs", container, pod.full()), "there run: "+strings.Join(names, ", "))
	case container == "" && len(names) > 1:
		return running{}, withHint(fmt.Errorf("pod %s has several containers, name one of: %s", pod.full(), strings.Join(names, ", ")), "for example: -c "+names[0])
	}
	return all[0], nil
}

// notThere says why a container that the supervisor knows does not run; of others it says what is known already.
func notThere(ctx context.Context, g *global, typed, container string, unknown error) error {
	list, err := g.supervisor().pods(ctx)
	if err != nil {
		return unknown
	}
	name, err := findPod(typed, podNames(list))
	if err != nil {
		return err
	}
	pod := podOf(list, name)
	all := slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses)
	if container == "" && slices.ContainsFunc(all, func(s corev1.ContainerStatus) bool { return s.State.Running != nil }) {
		return unknown // which of them is the question
	}
	for _, s := range all {
		if s.Name == cmp.Or(container, s.Name) && s.State.Running == nil {
			return withHint(fmt.Errorf("container %s of pod %s does not run: %s", s.Name, name.full(), stateOf(&s)), "slipway status "+name.name+" tells more")
		}
	}
	return unknown
}

func stateOf(s *corev1.ContainerStatus) string {
	switch {
	case s.State.Waiting != nil:
		return join(": ", s.State.Waiting.Reason, s.State.Waiting.Message)
	case s.State.Terminated != nil:
		return fmt.Sprintf("it ended with exit code %d (%s)", s.State.Terminated.ExitCode, s.State.Terminated.Reason)
	}
	return "its state is unknown"
}

// signalsFor returns the signals that are for the command: what ends a program. A terminal sends those of the keyboard
// as characters. The second one is SIGKILL.
func signalsFor(tty bool) (<-chan syscall.Signal, func()) {
	got := make(chan os.Signal, 4)
	kinds := []os.Signal{syscall.SIGTERM, syscall.SIGHUP}
	if !tty {
		kinds = append(kinds, syscall.SIGINT, syscall.SIGQUIT)
	}
	signal.Notify(got, kinds...)
	out, done := make(chan syscall.Signal), make(chan struct{})
	go func() { // ends with done
		for n := 0; ; n++ {
			select {
			case s := <-got:
				sent := s.(syscall.Signal) //nolint:errcheck // on Unix they are
				if n > 0 {
					sent = syscall.SIGKILL
				}
				select {
				case out <- sent:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(got); close(done) }
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// takeTerminal hands this terminal over: what is typed goes to the command as it is. restore gives it back. The sizes
// are those of the terminal, now and whenever it changes.
func takeTerminal(std Streams) (restore func(), sizes <-chan containerd.TerminalSize, err error) {
	fd := int(std.In.(*os.File).Fd()) //nolint:errcheck // isTerminal has seen it
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing the terminal: %w", err)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	changed <- syscall.SIGWINCH // the size of now
	out, done := make(chan containerd.TerminalSize), make(chan struct{})
	go func() { // ends with done
		for {
			select {
			case <-changed:
			case <-done:
				return
			}
			columns, rows, err := term.GetSize(fd)
			if err != nil || columns <= 0 || rows <= 0 {
				continue
			}
			select {
			case out <- containerd.TerminalSize{Columns: uint32(columns), Rows: uint32(rows)}:
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(done)
		_ = term.Restore(fd, before) // there is nothing else to be done with a terminal that is gone
	}, out, nil
}
