package cli

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// releaseProgram gives back the pages of this program's own code and constants that only start-up needed. They stay in
// the page cache and are mapped again, a few at a time, when they are used; what the steady state uses is a small part.
// The kernel maps sixteen pages around every one that is touched, which is how a start-up that runs once through much of
// the code becomes most of a daemon's resident memory.
func releaseProgram() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("reading this process's mappings: %w", err)
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding this process's program: %w", err)
	}
	for _, m := range readOnlyMappings(maps, program) {
		// DONTNEED of a private file mapping that is never written loses nothing: the file is read again.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("releasing the program's pages: %w", errno)
		}
	}
	return nil
}

type mapping struct{ start, end uintptr }

// readOnlyMappings returns the mappings of the file at path that cannot be written, from the text of /proc/PID/maps.
func readOnlyMappings(maps []byte, path string) []mapping {
	var out []mapping
	for line := range bytes.Lines(maps) {
		// address perms offset dev inode path
		fields := bytes.Fields(line)
		if len(fields) < 6 || string(fields[5]) != path || len(fields[1]) < 4 || fields[1][1] == 'w' || fields[1][3] != 'p' {
			continue
		}
		from, to, ok := bytes.Cut(fields[0], []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if ok && err1 == nil && err2 == nil {
			out = append(out, mapping{uintptr(start), uintptr(end)})
		}
	}
	return out
}
