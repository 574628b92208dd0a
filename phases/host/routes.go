package host

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// route is a default route: where packets leave that match nothing else.
type route struct {
	Interface string
	Metric    uint64
}

const (
	flagUp     = 0x0001 // RTF_UP
	flagReject = 0x0200 // RTF_REJECT: the kernel's own "unreachable" entry on lo
)

// defaultInterfaces4 returns the interfaces of IPv4 default routes in /proc/net/route, best metric first.
func defaultInterfaces4(table []byte) []string {
	var routes []route
	for line := range strings.Lines(string(table)) {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …, numbers in hex save for the metric
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		metric, errMetric := strconv.ParseUint(f[6], 10, 32)
		if err != nil || errMetric != nil || flags&flagUp == 0 || flags&flagReject != 0 {
			continue
		}
		routes = append(routes, route{f[0], metric})
	}
	return byMetric(routes)
}

// defaultInterfaces6 does the same for /proc/net/ipv6_route.
func defaultInterfaces6(table []byte) []string {
	const any6 = "00000000000000000000000000000000"
	var routes []route
	for line := range strings.Lines(string(table)) {
		// destination length source length next-hop metric refcount use flags interface, numbers in hex
		f := strings.Fields(line)
		if len(f) < 10 || f[0] != any6 || f[1] != "00" {
			continue
		}
		metric, errMetric := strconv.ParseUint(f[5], 16, 32)
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil || errMetric != nil || flags&flagUp == 0 || flags&flagReject != 0 || f[9] == "lo" {
			continue
		}
		routes = append(routes, route{f[9], metric})
	}
	return byMetric(routes)
}

func byMetric(routes []route) []string {
	slices.SortStableFunc(routes, func(a, b route) int { return int(int64(a.Metric) - int64(b.Metric)) })
	var names []string
	for _, r := range routes {
		if !slices.Contains(names, r.Interface) {
			names = append(names, r.Interface)
		}
	}
	return names
}

// defaultAddresses returns at most one address per family, IPv4 first: the first global one of the default route's
// interface, or of any interface where the family has no default route that leads to one.
func defaultAddresses(via4, via6 []string, interfaces []Interface) []netip.Addr {
	var found []netip.Addr
	for _, family := range []struct {
		via []string
		is  func(netip.Addr) bool
	}{
		{via4, netip.Addr.Is4},
		{via6, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }},
	} {
		if a, ok := firstGlobal(family.via, interfaces, family.is); ok {
			found = append(found, a)
		}
	}
	return found
}

func firstGlobal(via []string, interfaces []Interface, family func(netip.Addr) bool) (netip.Addr, bool) {
	global := func(i Interface) (netip.Addr, bool) {
		for _, a := range i.Addresses {
			if family(a) && a.IsGlobalUnicast() {
				return a, true
			}
		}
		return netip.Addr{}, false
	}
	for _, name := range via {
		for _, i := range interfaces {
			if i.Name != name || !i.Up {
				continue
			}
			if a, ok := global(i); ok {
				return a, true
			}
		}
	}
	// A loopback interface may carry the host's routed address (unnumbered links): it is asked last.
	for _, loopback := range []bool{false, true} {
		for _, i := range interfaces {
			if i.Up && i.Loopback == loopback {
				if a, ok := global(i); ok {
					return a, true
				}
			}
		}
	}
	return netip.Addr{}, false
}
