package host

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Cause is what probably keeps a program from running.
type Cause struct {
	Text string // for a human: what is wrong and where to look
	Line string // the log line that says so
	// Waits is set when the program only lacks another one, and would run once that is there.
	Waits bool
}

// rule maps a part of a log line to a cause. In text, $1 and so on are the pattern's groups, %s is the component.
type rule struct {
	pattern *regexp.Regexp
	text    string
	waits   bool
}

// causeRules are tried in order over all lines, from the last to the first: the more telling come first. The patterns
// are taken from what Kubernetes 1.36 and etcd 3.6 print.
func causeRules() []rule {
	must := regexp.MustCompile
	return []rule{
		{must(`unknown flag: (--\S+)`), "the flag $1 is not one that %s knows: check its extraArgs", false},
		{must(`flag provided but not defined: -(\S+)`), "the flag --$1 is not one that %s knows: check its extraArgs", false},
		{must(`invalid argument (".*?") for "(--\S+)" flag`), "the value $1 of the flag $2 is not valid: check the extraArgs of %s", false},
		{must(`unrecognized feature gate: ([^\s"\\]+)`), "%s of this version has no feature gate $1: check featureGates and extraArgs", false},
		{must(`enable-admission-plugins plugin \\?"(\w+)\\?" is unknown`), "there is no admission plugin $1: check the extraArgs of %s", false},
		{must(`\\?"([\w-]+)\\?" is not in the list of known controllers`), "there is no controller $1: check the extraArgs of %s", false},
		{must(`listen (?:tcp|udp)\d? (\S+): bind: address already in use`), "another program listens on $1: end it, or give %s another port", false},
		{must(`listen tcp\d? (\S+): bind: cannot assign requested address`), "the address of $1 is not on this host: check the advertise address and the extraArgs of %s", false},
		{must(`no space left on device`), "a disk that %s writes to is full: make room", false},
		{must(`private key does not match public key`), "a certificate and its key do not belong together: renew the pair of %s", false},
		{must(`x509: certificate has expired|certificate has expired or is not yet valid`), "a certificate that %s uses has expired or is not valid yet: check the clock, then renew it", false},
		{must(`x509: certificate signed by unknown authority`), "%s was given a certificate of another CA: CA and certificates do not belong together", false},
		{must(`does not contain any valid RSA or ECDSA (certificates|public keys)`), "a certificate or key file of %s is damaged", false},
		{must(`(?:failed to find any PEM data|asn1: structure error|x509: malformed)`), "a certificate or key file of %s is damaged", false},
		{must(`(?:open|stat) (\S+?): no such file or directory`), "%s finds no file $1: is its directory mounted into the pod?", false},
		{must(`(?:open|mkdir|stat|access) (\S+?): permission denied`), "%s may not use $1: check owner and mode", false},
		{must(`(?:database file|data-dir|WAL).*(?:corrupt|crc mismatch)|walpb: crc mismatch`), "the data of %s is damaged: restore a backup", false},
		{must(`error creating storage factory: context deadline exceeded`), "%s does not reach etcd: is it running, and are its endpoints right?", true},
		{must(`etcdserver: no leader|etcd cluster is unavailable`), "etcd has no leader", true},
		{must(`dial tcp (\S+): connect: connection refused`), "%s reaches nothing at $1: is the program there running?", true},
		{must(`dial tcp (\S+): i/o timeout|dial tcp (\S+): connect: no route to host`), "%s does not reach $1$2: check routes and packet filters", true},
	}
}

// LikelyCause returns what a component's last log lines tell about why it does not run. It is false where they tell
// nothing that is known.
func LikelyCause(component string, lines []string) (Cause, bool) {
	for _, r := range causeRules() {
		for i := len(lines) - 1; i >= 0; i-- {
			line := readable(lines[i])
			match := r.pattern.FindStringSubmatchIndex(line)
			if match == nil {
				continue
			}
			text := r.pattern.ExpandString(nil, strings.ReplaceAll(r.text, "%s", component), line, match)
			return Cause{Text: string(text), Line: line, Waits: r.waits}, true
		}
	}
	return Cause{}, false
}

// readable shortens etcd's JSON lines to what a human looks for: level, message and error, without the stack. Other
// lines stay as they are.
func readable(line string) string {
	if !strings.HasPrefix(line, "{") {
		return line
	}
	var entry struct{ Level, TS, Msg, Error string }
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg == "" {
		return line
	}
	if entry.Error == "" {
		return fmt.Sprintf("%s %s %s", entry.TS, entry.Level, entry.Msg)
	}
	return fmt.Sprintf("%s %s %s: %s", entry.TS, entry.Level, entry.Msg, entry.Error)
}
