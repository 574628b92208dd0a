package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/apply"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// unfinished refuses to run phases of init in the middle of what another command has begun and not finished; no phases are
// all of them. What starts containerd and the supervisor again is let through: to go on needs both.
func unfinished(files artifact.Store, paths config.Paths, only []string, suffix string) error {
	starts := func(phase string) bool { return phase == "supervisor" || strings.HasPrefix(phase, "supervisor/") }
	if len(only) > 0 && !slices.ContainsFunc(only, func(phase string) bool { return !starts(phase) }) {
		return nil
	}
	return besideOthers(files, paths, "init", suffix)
}

// besideOthers refuses to write in the middle of what another command has begun and not finished: going on with that, or
// taking it back, would put former files in the place of new ones.
func besideOthers(files artifact.Store, paths config.Paths, command, suffix string) error {
	if err := besideApply(files, paths, command, suffix); err != nil {
		return err
	}
	return besideStandstill(files, paths, suffix)
}

// besideApply refuses to write over what an interrupted apply is in the middle of changing: only its record knows how it
// was.
func besideApply(files artifact.Store, paths config.Paths, command, suffix string) error {
	record, err := apply.LoadRecord(files, paths.ApplyRecord())
	if record == nil || err != nil {
		return err
	}
	next := "go on with: slipway apply" + suffix + " --config FILE\ntake it back with: slipway apply" + suffix + " --take-back"
	if record.Reason != "" {
		next = "go on taking it back with: slipway apply" + suffix + " --take-back"
	}
	return withHint(fmt.Errorf("an apply that was begun on %s was interrupted: %s would write over what it has changed, and it could not be taken back any more",
		record.Began.Format(time.DateTime), command), next)
}

// besideStandstill refuses to make manifests while those of the control plane are put aside: it would start over data and
// files that are halfway to something else.
func besideStandstill(files artifact.Store, paths config.Paths, suffix string) error {
	begun, err := loadMove(files, paths)
	if err != nil {
		return err
	}
	if begun != nil {
		return withHint(begun.unfinished(), begun.next(suffix))
	}
	dir := plane.Aside(paths)
	var aside []string
	for _, name := range plane.Components() {
		_, missing := files.ReadFile(filepath.Join(paths.Manifests, name+".yaml"))
		_, err := files.ReadFile(filepath.Join(dir, name+".yaml"))
		if err == nil && errors.Is(missing, fs.ErrNotExist) {
			aside = append(aside, name)
		}
	}
	if len(aside) == 0 {
		return nil
	}
	return withHint(fmt.Errorf("a restore of a snapshot was interrupted: the manifests of %s are put aside in %s", strings.Join(aside, ", "), dir),
		"go on with: slipway etcd snapshot restore"+suffix+" FILE\nstart what there is instead: move them back to "+paths.Manifests)
}

// loadMove returns the move to another address that was begun and is not finished; nil for none.
func loadMove(files artifact.Store, paths config.Paths) (*record, error) {
	f, err := files.ReadFile(recordPath(paths))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var begun record
	if err := json.Unmarshal(f.Data, &begun); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Path, err)
	}
	return &begun, nil
}
