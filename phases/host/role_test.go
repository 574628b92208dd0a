package host

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// playRole is what a helper process does. It writes one byte to stdout once it is set up.
func playRole(role string) {
	switch role {
	case "obedient":
		fmt.Print(".")
		pause()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Print(".")
		pause()
	case "server": // listens on the socket that its last argument names
		socket := os.Args[len(os.Args)-1]
		os.Remove(socket) //nolint:errcheck // what a killed one left, as containerd does
		l, err := net.Listen("unix", socket)
		if err != nil {
			fmt.Println("listening failed:", err)
			os.Exit(1)
		}
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	case "broken":
		fmt.Println("first line\nError: unknown flag: --no-such-flag")
		os.Exit(3)
	}
}

// pause sleeps without looking like a deadlock to the Go runtime.
func pause() {
	for {
		syscall.Pause() //nolint:errcheck // it always returns EINTR
	}
}
