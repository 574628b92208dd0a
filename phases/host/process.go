package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// processes runs services as detached processes: in their own session, with a log file and a pid file, so that they
// outlive slipway and its terminal on a machine without an init system.
type processes struct {
	files   artifact.Store
	ledger  Ledger
	environ []string
	grace   time.Duration // between SIGTERM and SIGKILL when a service must start again
}

// pidFile is the content of a pid file. A pid alone would not tell whether the process is still the one that was
// started, and with which configuration.
type pidFile struct {
	ProcessID
	Argv   []string `json:"argv"`
	Config string   `json:"config"` // hex SHA-256 of argv and the configuration files
}

func (p *processes) ensure(ctx context.Context, s service) (bool, error) {
	fingerprint, err := fingerprintOf(p.files, s)
	if err != nil {
		return false, fmt.Errorf("starting %s: %w", s.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	running, err := p.running(s)
	if err != nil {
		return false, err
	}
	if running.Running() {
		if running.Config == fingerprint {
			if err := awaitReady(ctx, s.Ready); err != nil {
				return false, startError(s.Name, err, lastLines(s.LogFile, logTail), "read "+s.LogFile)
			}
			return false, nil
		}
		if err := StopProcess(ctx, running.ProcessID, p.grace); err != nil {
			return false, fmt.Errorf("restarting %s with its new configuration: %w", s.Name, err)
		}
	}
	return true, p.start(ctx, s, fingerprint)
}

// running reads the pid file. Where it is missing or stale, a process with the same command line is taken for ours: a
// run that was killed between start and pid file left it.
func (p *processes) running(s service) (pidFile, error) {
	file, err := p.files.ReadFile(s.PIDFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pidFile{}, fmt.Errorf("looking for a running %s: %w", s.Name, err)
	}
	var known pidFile
	if err == nil && json.Unmarshal(file.Data, &known) == nil && known.Running() {
		return known, nil
	}
	if id, ok := findProcess("/proc", s.Argv); ok {
		// Its configuration is unknown: it is started again, with the present one.
		return pidFile{ProcessID: id, Argv: s.Argv}, nil
	}
	return pidFile{}, nil
}

func (p *processes) start(ctx context.Context, s service, fingerprint string) error {
	record := Process{Name: s.Name, Argv: s.Argv, PIDFile: s.PIDFile, LogFile: s.LogFile}
	if err := p.ledger.Process(record); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	if err := p.files.Put(artifact.File{Path: filepath.Dir(s.LogFile), Mode: fs.ModeDir | 0o700}); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	defer log.Close()

	// What this process inherited from its caller, a lock's descriptor for example, must not live on in the daemon.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing inherited files to %s: %w", s.Name, err)
	}
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = p.environ
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	// The goroutine ends with the program. If slipway ends first, the program lives on, reaped by init.
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		cmd.Wait() //nolint:errcheck // ProcessState says how it ended
		ended(fmt.Errorf("%s: %w", cmd.ProcessState, errEnded))
	}()

	id, err := IdentifyProcess(cmd.Process.Pid)
	if err == nil {
		err = p.remember(s, record, id, fingerprint)
	}
	if err == nil || errors.Is(err, ErrNotRunning) { // one that ended at once says why in its log
		err = awaitReady(ctx, s.Ready)
	} else {
		cmd.Process.Kill() //nolint:errcheck // it must not run unrecorded
	}
	if err != nil {
		return startError(s.Name, err, lastLines(s.LogFile, logTail), "read "+s.LogFile)
	}
	return nil
}

func (p *processes) remember(s service, record Process, id ProcessID, fingerprint string) error {
	record.ProcessID = id
	if err := p.ledger.Process(record); err != nil {
		return err
	}
	data, err := json.Marshal(pidFile{ProcessID: id, Argv: s.Argv, Config: fingerprint})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", s.PIDFile, err)
	}
	return p.files.Put(artifact.File{Path: s.PIDFile, Data: append(data, '\n'), Mode: 0o600})
}

// fingerprintOf changes with everything that a program reads only at its start.
func fingerprintOf(files artifact.Store, s service) (string, error) {
	sum := sha256.New()
	for _, arg := range s.Argv {
		fmt.Fprintf(sum, "%q\n", arg)
	}
	for _, path := range s.Configs {
		file, err := files.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("reading its configuration: %w", err)
		}
		fmt.Fprintf(sum, "%d\n%s", len(file.Data), file.Data)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
