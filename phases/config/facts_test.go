package config

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseFactsReadsWhatJSONWrites(t *testing.T) {
	want := HostFacts{
		Hostname: "a", DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		CADirs: []string{"/etc/pki"}, ProxyEnv: map[string]string{"no_proxy": "x,y"}, CgroupDriver: "cgroupfs",
		ResolvConf: "/run/systemd/resolve/resolv.conf", Systemd: true, RestrictOOMScore: true, Executable: "/usr/bin/slipway",
	}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseFacts("facts.json", data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseFactsIsStrict(t *testing.T) {
	_, err := ParseFacts("facts.yaml", []byte("hostnam: a\ndefaultAddresses: [x, 127.0.0.1]\ncgroupDriver: none\ncaDirs: [etc]\nexecutable: slipway\nsystemd: \"yes\"\n"))
	if err == nil {
		t.Fatal("no error")
	}
	want := `facts.yaml:1: hostnam: unknown field; did you mean "hostname"?
facts.yaml:2: defaultAddresses[0]: "x": ParseAddr("x"): unable to parse IP
facts.yaml:2: defaultAddresses[1]: "127.0.0.1" is not an address that other hosts can reach
facts.yaml:3: cgroupDriver: "none": wanted "systemd" or "cgroupfs"
facts.yaml:4: caDirs[0]: "etc" is not an absolute path
facts.yaml:5: executable: "slipway" is not an absolute path
facts.yaml:6: systemd: wanted true or false, found the string "yes"`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := ParseFacts("facts.yaml", []byte("")); err == nil {
		t.Error("an empty file is taken for facts")
	}
}
