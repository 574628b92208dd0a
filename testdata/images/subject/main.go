// Command subject is what the tests and the benchmark run in containers: it does, one after the other, what its
// arguments say, and then ends with exit code 0. The first step that fails ends it with exit code 125.
//
//	forever            runs until a signal ends it
//	sleep:DURATION
//	exit:CODE
//	print:TEXT         one line to standard output; error:TEXT to standard error
//	spam:BYTES         lines of 100 bytes to standard output, as fast as they are taken
//	flood:BYTES:RATE   the same, with at most RATE bytes a second
//	write:PATH=TEXT    the file with exactly this text; append:PATH=TEXT adds a line
//	cat:PATH           the file to standard output
//	need:PATH          fails when there is no such file
//	env:NAME           the variable's value, or all variables for an empty name
//	id                 user, groups, working directory, arguments, effective capabilities, seccomp and no-new-privileges
//	mounts             /proc/self/mountinfo
//	listen:ADDRESS     HTTP in the background: 200 to everything, 500 while the file /tmp/unhealthy exists
//	get:URL            the body of what HTTP answers with 200, within 5 s
//	lookup:NAME        the addresses of a name, one a line, by the resolver of /etc/resolv.conf
//	tcp:ADDRESS        accepts connections in the background
//	signal:NAME=CODE   from now on the signal TERM, INT, HUP, QUIT or USR1 prints its name and ends with the code;
//	                   code "ignore" prints it and goes on
//	memory:BYTES       holds that much memory
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, step := range os.Args[1:] {
		if err := do(step); err != nil {
			fmt.Fprintf(os.Stderr, "subject: %s: %v\n", step, err)
			os.Exit(125)
		}
	}
}

var held [][]byte // by memory

func do(step string) error {
	verb, arg, _ := strings.Cut(step, ":")
	switch verb {
	case "forever":
		for { // not select{}, which the Go runtime takes for a deadlock
			time.Sleep(time.Hour)
		}
	case "sleep":
		d, err := time.ParseDuration(arg)
		time.Sleep(d)
		return err
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		os.Exit(code)
	case "print":
		fmt.Println(arg)
	case "error":
		fmt.Fprintln(os.Stderr, arg)
	case "spam":
		return flood(arg, "")
	case "flood":
		size, rate, _ := strings.Cut(arg, ":")
		return flood(size, rate)
	case "write":
		path, text, _ := strings.Cut(arg, "=")
		return os.WriteFile(path, []byte(text), 0o644)
	case "append":
		path, text, _ := strings.Cut(arg, "=")
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintln(f, text)
		return err
	case "cat":
		return show(arg)
	case "need":
		_, err := os.Stat(arg)
		return err
	case "env":
		if arg != "" {
			fmt.Println(os.Getenv(arg))
			return nil
		}
		vars := os.Environ()
		slices.Sort(vars)
		fmt.Println(strings.Join(vars, "\n"))
	case "id":
		return identity()
	case "mounts":
		return show("/proc/self/mountinfo")
	case "listen":
		l, err := net.Listen("tcp", arg)
		if err != nil {
			return err
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:errcheck // until the end
			if _, err := os.Stat("/tmp/unhealthy"); err == nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
			fmt.Fprintln(w, r.URL.Path)
		}))
	case "get":
		return get(arg)
	case "lookup":
		ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
		defer cancel()
		addresses, err := net.DefaultResolver.LookupHost(ctx, arg)
		if err != nil {
			return err
		}
		slices.Sort(addresses)
		fmt.Println(strings.Join(addresses, "\n"))
	case "tcp":
		l, err := net.Listen("tcp", arg)
		if err != nil {
			return err
		}
		go func() {
			for {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}
		}()
	case "signal":
		return onSignal(arg)
	case "memory":
		n, err := strconv.Atoi(arg)
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
		return err
	default:
		return fmt.Errorf("there is no such step")
	}
	return nil
}

func onSignal(arg string) error {
	name, end, _ := strings.Cut(arg, "=")
	numbers := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1}
	number, known := numbers[name]
	code, err := strconv.Atoi(end)
	if !known || err != nil && end != "ignore" {
		return fmt.Errorf("not a signal and a code")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, number)
	go func() {
		for range c {
			fmt.Println("SIG" + name)
			if end != "ignore" {
				os.Exit(code)
			}
		}
	}()
	return nil
}

// answerLimit is how long anything in the network may take to answer.
const answerLimit = 5 * time.Second

func get(url string) error {
	client := http.Client{Timeout: answerLimit}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", r.Status)
	}
	_, err = io.Copy(os.Stdout, r.Body)
	return err
}

func flood(size, rate string) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	perSecond := int64(0)
	if rate != "" {
		if perSecond, err = strconv.ParseInt(rate, 10, 64); err != nil {
			return err
		}
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	start := time.Now()
	for done := int64(0); done < n; done += 100 {
		fmt.Fprintf(out, "%099d\n", done/100)
		if due := time.Duration(0); perSecond > 0 && done%(64<<10) < 100 {
			due = time.Duration(float64(done) / float64(perSecond) * float64(time.Second))
			time.Sleep(due - time.Since(start))
		}
	}
	return out.Flush()
}

func show(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(os.Stdout, f)
	return err
}

func identity() error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	slices.Sort(groups)
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("uid=%d gid=%d groups=%v dir=%s host=%s args=%q\n", os.Getuid(), os.Getgid(), groups, dir, host, os.Args)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if slices.ContainsFunc([]string{"CapEff:", "NoNewPrivs:", "Seccomp:"}, func(p string) bool { return strings.HasPrefix(line, p) }) {
			fmt.Print(line)
		}
	}
	return nil
}
