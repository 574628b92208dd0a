package plane

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

func move(from, to string) Move {
	return Move{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), FromName: "edge1", ToName: "edge1"}
}

func TestTextReplacesWholeAddressesOnly(t *testing.T) {
	four, six := move("192.0.2.1", "198.51.100.7"), move("2001:db8::1", "2001:db8::2:7")
	for _, tc := range []struct {
		move     Move
		in, want string
	}{
		{four, "--advertise-address=192.0.2.1", "--advertise-address=198.51.100.7"},
		{four, "https://127.0.0.1:2379,https://192.0.2.1:2379", "https://127.0.0.1:2379,https://198.51.100.7:2379"},
		{four, "192.0.2.1,192.0.2.1 192.0.2.1.", "198.51.100.7,198.51.100.7 198.51.100.7."},
		{four, "192.0.2.10 192.0.2.1.5 1192.0.2.1 5.192.0.2.1", "192.0.2.10 192.0.2.1.5 1192.0.2.1 5.192.0.2.1"},
		{four, "192.0.2.1/24", "198.51.100.7/24"},
		{six, "https://[2001:db8::1]:2380", "https://[2001:db8::2:7]:2380"},
		{six, "--advertise-address=2001:db8::1", "--advertise-address=2001:db8::2:7"},
		{six, "2001:db8::10 1:2001:db8::1 2001:db8::1:5", "2001:db8::10 1:2001:db8::1 2001:db8::1:5"},
		{move("192.0.2.1", "192.0.2.1"), "192.0.2.1", "192.0.2.1"},
	} {
		if got := tc.move.Text(tc.in); got != tc.want {
			t.Errorf("%s → %s: %q: got %q, want %q", tc.move.From, tc.move.To, tc.in, got, tc.want)
		}
	}
}

func TestManifestMovesTheMemberAndKeepsTheRest(t *testing.T) {
	m := move("192.0.2.1", "198.51.100.7")
	m.ToName = "edge2"
	in := `# a comment about edge1
    - --name=edge1
    - --initial-cluster=edge1=https://192.0.2.1:2380
    - --data-dir=/var/lib/edge1
    - "--name=edge10"
`
	want := `# a comment about edge1
    - --name=edge2
    - --initial-cluster=edge2=https://198.51.100.7:2380
    - --data-dir=/var/lib/edge1
    - "--name=edge10"
`
	if diff := cmp.Diff(want, string(m.Manifest(Etcd, artifact.File{Data: []byte(in)}).Data)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := m.Manifest(Scheduler, artifact.File{Data: []byte("--name=edge1\n")}); string(got.Data) != "--name=edge1\n" {
		t.Errorf("another component's name: %q", got.Data)
	}
}

func TestNames(t *testing.T) {
	m := move("192.0.2.1", "198.51.100.7")
	m.ToName = "edge2"
	want := []string{"edge2", "localhost", "198.51.100.7", "127.0.0.1"}
	if diff := cmp.Diff(want, m.Names([]string{"edge1", "localhost", "192.0.2.1", "127.0.0.1"})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMoveCheck(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"192.0.2.1", "198.51.100.7", ""},
		{"192.0.2.1", "2001:db8::1", "different families"},
		{"192.0.2.1", "0.0.0.0", "not an address that a node can have"},
		{"192.0.2.1", "224.0.0.1", "not an address that a node can have"},
	} {
		err := move(tc.from, tc.to).Check()
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s → %s: %v, want %q", tc.from, tc.to, err, tc.want)
		}
	}
}
