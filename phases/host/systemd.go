package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// units runs services as systemd units, over D-Bus.
type units struct{ ledger Ledger }

func (u *units) ensure(ctx context.Context, s service) (bool, error) {
	started, err := u.start(ctx, s)
	if err != nil {
		return started, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := awaitReady(ctx, s.Ready); err != nil {
		return started, startError(s.Name, err, journal(ctx, s.Unit), "journalctl -u "+s.Unit)
	}
	return started, nil
}

func (u *units) start(ctx context.Context, s service) (bool, error) {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return false, fmt.Errorf("connecting to systemd: %w", err)
	}
	defer conn.Close()
	if err := u.ledger.Unit(s.Unit); err != nil {
		return false, fmt.Errorf("enabling %s: %w", s.Unit, err)
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return false, fmt.Errorf("reloading systemd's units: %w", err)
	}
	if _, _, err := conn.EnableUnitFilesContext(ctx, []string{s.Unit}, false, true); err != nil {
		return false, fmt.Errorf("enabling %s: %w", s.Unit, err)
	}
	if err := conn.ReloadContext(ctx); err != nil { // so that the new links count at the next boot's plan
		return false, fmt.Errorf("reloading systemd's units: %w", err)
	}
	properties, err := conn.GetUnitPropertiesContext(ctx, s.Unit)
	if err != nil {
		return false, fmt.Errorf("reading the state of %s: %w", s.Unit, err)
	}
	state := unitStateOf(properties)
	action := conn.StartUnitContext
	switch {
	case state.active && !state.olderThan(changedAt(append([]string{state.file}, s.Configs...))):
		return false, nil
	case state.active:
		action = conn.RestartUnitContext
	}
	// A unit that failed too often refuses to start until its counter is cleared.
	conn.ResetFailedUnitContext(ctx, s.Unit) //nolint:errcheck // a unit that has not failed gives an error
	done := make(chan string, 1)
	if _, err := action(ctx, s.Unit, "replace", done); err != nil {
		return true, fmt.Errorf("starting %s: %w", s.Unit, err)
	}
	select {
	case <-ctx.Done():
		return true, fmt.Errorf("waiting for %s: %w", s.Unit, ctx.Err())
	case result := <-done:
		if result == "done" {
			return true, nil
		}
		reason := fmt.Errorf("systemd's job ended with %q%s", result, u.result(ctx, conn, s.Unit))
		return true, startError(s.Name, reason, journal(ctx, s.Unit), "systemctl status "+s.Unit)
	}
}

// result says what systemd knows of the unit's main process, such as ` (exit-code, status 1)`.
func (u *units) result(ctx context.Context, conn *dbus.Conn, unit string) string {
	properties, err := conn.GetUnitTypePropertiesContext(ctx, unit, "Service")
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (%v, status %v)", properties["Result"], properties["ExecMainStatus"])
}

type unitState struct {
	active bool
	since  time.Time // when it became active
	file   string    // path of the unit file
}

func unitStateOf(properties map[string]any) unitState {
	active, _ := properties["ActiveState"].(string)
	since, _ := properties["ActiveEnterTimestamp"].(uint64) // µs since the epoch
	file, _ := properties["FragmentPath"].(string)
	return unitState{active: active == "active", since: time.UnixMicro(int64(since)), file: file}
}

// olderThan reports whether the unit started before its files were last changed, so that it runs with former ones.
func (s unitState) olderThan(changed time.Time) bool { return s.since.Before(changed) }

// changedAt returns the latest modification time of the files that exist.
func changedAt(paths []string) time.Time {
	var latest time.Time
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	return latest
}

// journal returns the unit's last log lines, or nil where the journal cannot be read.
func journal(ctx context.Context, unit string) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "journalctl", "--unit", unit, "--lines", strconv.Itoa(logTail), "--output", "cat", "--no-pager").Output()
	if err != nil {
		return nil
	}
	return tailOf(strings.TrimRight(string(out), "\n"), logTail)
}
