package host

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listeners returns who listens on the given TCP ports. The files of processes are searched only when a port is taken:
// that is the one slow part, some 20 µs for each open file of the machine.
func (i inspector) listeners(ports []uint16) (map[uint16]Listener, error) {
	found := map[uint16]Listener{}
	inodes := map[string]uint16{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(i.path(table))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading listening ports: %w", err)
		}
		for _, s := range listeningSockets(string(data)) {
			if _, seen := found[s.address.Port()]; seen || !slices.Contains(ports, s.address.Port()) {
				continue
			}
			found[s.address.Port()] = Listener{Address: s.address.String()}
			inodes["socket:["+s.inode+"]"] = s.address.Port()
		}
	}
	if len(inodes) == 0 {
		return found, nil
	}
	for _, pid := range pids(i.path("/proc")) {
		for _, port := range i.portsOf(pid, inodes) {
			l := found[port]
			l.PID, l.Program, l.Ours = pid, i.read(fmt.Sprintf("/proc/%d/comm", pid)), i.inOurPod(pid)
			found[port] = l
			delete(inodes, socketOf(inodes, port)) // a socket that children share belongs to the lowest pid
		}
		if len(inodes) == 0 {
			break
		}
	}
	return found, nil
}

type listeningSocket struct {
	address netip.AddrPort
	inode   string
}

// listeningSockets reads a table of /proc/net/tcp's form.
func listeningSockets(table string) []listeningSocket {
	const listen = "0A" // TCP_LISTEN
	var sockets []listeningSocket
	for line := range strings.Lines(table) {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != listen {
			continue
		}
		if address, err := kernelAddress(f[1]); err == nil {
			sockets = append(sockets, listeningSocket{address, f[9]})
		}
	}
	return sockets
}

// kernelAddress parses "0100007F:0CEA": the address in words of the machine's byte order (amd64, arm64: little), the
// port in the network's.
func kernelAddress(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	bytes, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := 0; word+4 <= len(bytes); word += 4 {
		slices.Reverse(bytes[word : word+4])
	}
	address, ok := netip.AddrFromSlice(bytes)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", text)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(number)), nil
}

func (i inspector) portsOf(pid int, inodes map[string]uint16) []uint16 {
	dir := i.path(fmt.Sprintf("/proc/%d/fd", pid))
	entries, _ := os.ReadDir(dir) // it may have ended, or belong to another user
	var ports []uint16
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if port, ok := inodes[target]; ok && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

func socketOf(inodes map[string]uint16, port uint16) string {
	for inode, p := range inodes {
		if p == port {
			return inode
		}
	}
	return ""
}

// inOurPod reports whether the process runs in a container of this instance: below a shim of slipway's own containerd,
// which is told by its address, or, with a runtime that the user brings, in a pod's cgroup on a host that slipway was
// initialized on. Both hold with the supervisor and containerd dead.
func (i inspector) inOurPod(pid int) bool {
	if strings.Contains(i.read(fmt.Sprintf("/proc/%d/cgroup", pid)), "kubepods") && i.ledger.Owns(i.paths.KubeletConfig) {
		return true
	}
	for depth := 0; pid > 1 && depth < 64; depth++ {
		argv := strings.Split(i.read(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00")
		if at := slices.Index(argv, "-address"); at >= 0 && at+1 < len(argv) && argv[at+1] == i.paths.ContainerdSocket {
			return true
		}
		fields, err := statFields(i.read(fmt.Sprintf("/proc/%d/stat", pid)))
		if err != nil {
			return false
		}
		pid, _ = strconv.Atoi(fields[1]) // the parent
	}
	return false
}
