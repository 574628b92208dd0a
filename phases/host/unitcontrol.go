package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// stopTimeout bounds the stop of one unit. The units themselves give up earlier.
const stopTimeout = 90 * time.Second

// SystemdRuns tells whether systemd is this machine's init system, as sd_booted(3) does.
func SystemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// Units stops, disables and forgets systemd units. Use ConnectUnits, and Close it.
type Units struct{ conn *dbus.Conn }

// ConnectUnits connects to systemd over D-Bus.
func ConnectUnits(ctx context.Context) (*Units, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	return &Units{conn}, nil
}

// Close ends the connection.
func (u *Units) Close() { u.conn.Close() }

// Known tells whether systemd has loaded the unit, or would find its file.
func (u *Units) Known(ctx context.Context, name string) (bool, error) {
	p, err := u.conn.GetUnitPropertyContext(ctx, name, "LoadState")
	if err != nil {
		return false, fmt.Errorf("asking systemd for %s: %w", name, err)
	}
	state, _ := p.Value.Value().(string)
	return state != "not-found", nil
}

// Stop stops the unit and waits for its end. A unit that systemd does not know is stopped already.
func (u *Units) Stop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	done := make(chan string, 1)
	if _, err := u.conn.StopUnitContext(ctx, name, "replace", done); err != nil {
		if noSuchUnit(err) {
			return nil
		}
		return fmt.Errorf("stopping unit %s: %w", name, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("stopping unit %s: systemd says %q", name, result)
		}
	case <-ctx.Done():
		return fmt.Errorf("stopping unit %s: %w", name, ctx.Err())
	}
	// A unit that failed before would be shown as failed for ever; ErrNoSuchUnit means that it is forgotten already.
	if err := u.conn.ResetFailedUnitContext(ctx, name); err != nil && !noSuchUnit(err) {
		return fmt.Errorf("clearing the state of unit %s: %w", name, err)
	}
	return nil
}

// Disable keeps the unit from starting at boot.
func (u *Units) Disable(ctx context.Context, name string) error {
	if _, err := u.conn.DisableUnitFilesContext(ctx, []string{name}, false); err != nil && !noSuchUnit(err) {
		return fmt.Errorf("disabling unit %s: %w", name, err)
	}
	return nil
}

// Reload makes systemd read its unit files again.
func (u *Units) Reload(ctx context.Context) error {
	if err := u.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reloading systemd's units: %w", err)
	}
	return nil
}

func noSuchUnit(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) && (strings.HasSuffix(e.Name, ".NoSuchUnit") || strings.HasSuffix(e.Name, ".NotFound") || strings.HasSuffix(e.Name, "FileNotFound"))
}
