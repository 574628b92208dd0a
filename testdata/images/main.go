// Command images builds etcd and the Kubernetes control plane from Go modules, with -all also what workers run, and writes
// each as a container image archive under the name that kubeadm gives it. It needs a Go toolchain and a module proxy, no
// registry, no daemon.
//
// A set that was built once is kept in the cache under a key of everything that went into it, so a second run only
// copies.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("out", "", "directory for the image archives")
	programs := flags.String("programs", "", "directory for kubectl, and with -all for kubeadm, kubelet and the rest")
	all := flags.Bool("all", false, "also build kubeadm, kubelet and containerd 2, which the tests and the benchmark use")
	workers := flags.String("addons", "", "directory for the image archives of kube-proxy and CoreDNS; needs -all")
	cache := flags.String("cache", defaultCache(), "directory that keeps finished builds")
	source := flags.String("source", ".", "directory of this module")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" && *programs == "" {
		return fmt.Errorf("nothing to do: set -out, -programs or both")
	}
	b := builder{source: *source, cache: *cache, progress: progress(time.Now())}
	built := map[string]string{}
	for _, set := range sets(*all) {
		if *out == "" && set.module == "pause" {
			continue
		}
		paths, err := b.build(ctx, set)
		if err != nil {
			return err
		}
		for name, path := range paths {
			built[name] = path
		}
	}
	if *programs != "" {
		if err := os.MkdirAll(*programs, 0o755); err != nil {
			return fmt.Errorf("making %q: %w", *programs, err)
		}
		for name, path := range built {
			if name == "pause" {
				continue
			}
			if err := copyFile(path, filepath.Join(*programs, name), 0o755); err != nil {
				return err
			}
		}
	}
	if *programs != "" && *all {
		if err := b.archive(*programs, built, subject()); err != nil {
			return err
		}
	}
	if *workers != "" {
		images, err := addons()
		if err != nil {
			return err
		}
		if err := b.archive(*workers, built, images...); err != nil {
			return err
		}
	}
	if *out == "" {
		return nil
	}
	return b.archive(*out, built, images()...)
}

// progress prints one line per step with the time since the start, because a cold build takes minutes.
func progress(start time.Time) func(format string, args ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "images: %5.0fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

func defaultCache() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "slipway", "images")
}
