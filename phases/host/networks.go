package host

import (
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Route is one network that packets leave for through an interface. Default routes are none.
type Route struct {
	Destination netip.Prefix
	Interface   string
}

// routes returns the networks that this machine is connected or routed to, IPv4 first.
func (i inspector) routes() []Route {
	table4, _ := os.ReadFile(i.path("/proc/net/route")) // absent where the kernel lacks the family
	table6, _ := os.ReadFile(i.path("/proc/net/ipv6_route"))
	return append(networks4(string(table4)), networks6(string(table6))...)
}

// networks4 reads /proc/net/route. Addresses are words in the machine's byte order (amd64, arm64: little).
func networks4(table string) []Route {
	var found []Route
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		if err != nil || flags&flagUp == 0 || flags&flagReject != 0 {
			continue
		}
		to, err := kernelAddress(f[1] + ":0")
		mask, errMask := strconv.ParseUint(f[7], 16, 32)
		if err != nil || errMask != nil || mask == 0 {
			continue
		}
		bits := 0
		for ; mask != 0; mask >>= 1 {
			bits += int(mask & 1)
		}
		found = append(found, Route{netip.PrefixFrom(to.Addr(), bits).Masked(), f[0]})
	}
	return found
}

// networks6 reads /proc/net/ipv6_route, without what every machine has: link-local, multicast and single addresses.
func networks6(table string) []Route {
	var found []Route
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[9] == "lo" {
			continue
		}
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil || flags&flagUp == 0 || flags&flagReject != 0 {
			continue
		}
		bytes, err := hex.DecodeString(f[0])
		to, ok := netip.AddrFromSlice(bytes)
		bits, errBits := strconv.ParseUint(f[1], 16, 8)
		if err != nil || !ok || errBits != nil || bits == 0 || bits == 128 || to.IsLinkLocalUnicast() || to.IsMulticast() {
			continue
		}
		found = append(found, Route{netip.PrefixFrom(to, int(bits)).Masked(), f[9]})
	}
	return found
}
