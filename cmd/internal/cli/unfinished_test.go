package cli

import (
	"path/filepath"
	"testing"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

func TestInitBesideWhatIsUnfinished(t *testing.T) {
	paths := config.NewPaths("")
	const (
		applying  = "an apply that was begun on 2026-11-28 12:00:00 was interrupted: init would write over what it has changed, and it could not be taken back any more"
		moving    = "a move from 192.0.2.1 to 192.0.2.2 was begun and is not finished"
		restoring = "a restore of a snapshot was interrupted: the manifests of etcd are put aside in /var/lib/slipway/aside"

		goOn       = "go on with: slipway apply --instance b --config FILE\ntake it back with: slipway apply --instance b --take-back"
		takeBack   = "go on taking it back with: slipway apply --instance b --take-back"
		finishMove = "finish it: slipway readdress --apiserver-advertise-address 192.0.2.2 --instance b\n" +
			"go back: slipway readdress --apiserver-advertise-address 192.0.2.1 --instance b"
		restore = "go on with: slipway etcd snapshot restore --instance b FILE\nstart what there is instead: move them back to /etc/kubernetes/manifests"
	)
	forward := map[string]string{paths.ApplyRecord(): `{"began":"2026-11-28T12:00:00Z"}`}
	move := map[string]string{recordPath(paths): `{"from":"192.0.2.1","to":"192.0.2.2"}`}
	aside := filepath.Join(plane.Aside(paths), "etcd.yaml")
	for name, tc := range map[string]struct {
		files      map[string]string
		only       []string
		want, hint string // "" is let through
	}{
		"nothing":                        {nil, nil, "", ""},
		"init":                           {forward, nil, applying, goOn},
		"on its way back":                {map[string]string{paths.ApplyRecord(): `{"began":"2026-11-28T12:00:00Z","reason":"it was not ready"}`}, nil, applying, takeBack},
		"a phase that writes":            {forward, []string{"control-plane/scheduler"}, applying, goOn},
		"what the apply needs to go on":  {forward, []string{"supervisor/supervise"}, "", ""},
		"the whole of what it needs":     {forward, []string{"supervisor"}, "", ""},
		"what it needs, and another one": {forward, []string{"supervisor", "etcd"}, applying, goOn},
		"a move to another address":      {move, nil, moving, finishMove},
		"what the move needs to go on":   {move, []string{"supervisor/supervise"}, "", ""},
		"a restore of a snapshot":        {map[string]string{aside: "kind: Pod"}, nil, restoring, restore},
		"a restore that started again":   {map[string]string{aside: "kind: Pod", filepath.Join(paths.Manifests, "etcd.yaml"): "kind: Pod"}, nil, "", ""},
	} {
		disk := artifact.Disk{Root: t.TempDir()}
		for path, data := range tc.files {
			if err := disk.Put(artifact.File{Path: path, Data: []byte(data), Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
		}
		err := unfinished(disk, paths, tc.only, " --instance b")
		got, hint := "", ""
		if err != nil {
			got = err.Error()
		}
		if h, ok := err.(*hinted); ok {
			hint = h.hint
		}
		if got != tc.want || hint != tc.hint {
			t.Errorf("%s: %q, hint %q", name, got, hint)
		}
	}
}
