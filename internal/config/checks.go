package config

import (
	"crypto/fips140"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"postern/internal/ledger"
	"postern/policy"
)

// Load reads the variables in environ, entries of the form KEY=VALUE as from
// os.Environ; where a key comes twice the last one counts. The error is of
// type [Problems] and holds everything that is wrong at once.
func Load(environ []string) (*Config, error) {
	return whole(Inspect(environ))
}

func whole(c *Config, problems Problems) (*Config, error) {
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// Inspect is Load for a caller that continues in spite of problems. Variables
// with a problem may have a zero field.
func Inspect(environ []string) (*Config, Problems) {
	c, problems := inspect(environ, []string{""}, (*loader).check)
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, goMemoryLimit+"="); ok && !goMemoryLimits.MatchString(value) {
			bad := badValue{value, "Go does not start with it: write a number of bytes with B, KiB, MiB, GiB or TiB behind it, as in 1800MiB"}
			problems = append(Problems{goMemoryLimit + ": " + bad.Error()}, problems...)
		}
	}
	return c, problems
}

// goMemoryLimit is a variable of Go's own. The Go runtime ends a process at once in whose
// environment it is malformed, so that only check can say what is wrong.
const goMemoryLimit = "GOMEMLIMIT"

var goMemoryLimits = regexp.MustCompile(`^(|off|[0-9]{1,18}(B|[KMGT]iB)?)$`)

// LoadAdmin reads AdminListen and AdminTLSCertFile, which locate the admin port
// of a running Postern. Problems of other variables do not matter.
// The error is of type [Problems].
func LoadAdmin(environ []string) (*Config, error) {
	return whole(inspect(environ, []string{"ADMIN_LISTEN=", "ADMIN_TLS_CERT_FILE="}, (*loader).checkAdmin))
}

// LoadPolicy reads the POLICY_ and LISTEN_ variables. Problems of others do not
// matter. The error is of type [Problems].
func LoadPolicy(environ []string) (*Config, error) {
	return whole(inspect(environ, []string{"POLICY_", "LISTEN_"}, (*loader).checkPolicy))
}

// LoadLedger reads the ADMIN_, LEDGER_, POLICY_, LISTEN_ and PROGRAMS_ variables. Problems
// of others do not matter. The error is of type [Problems].
func LoadLedger(environ []string) (*Config, error) {
	return whole(inspect(environ, []string{"ADMIN_", "LEDGER_", "POLICY_", "LISTEN_", "PROGRAMS_"},
		(*loader).checkAdmin, (*loader).checkPolicy, (*loader).checkLedger))
}

// inspect is Inspect for the entries that begin with one of the given texts.
func inspect(environ, begin []string, checks ...func(*loader, *Config)) (*Config, Problems) {
	c := new(Config)
	l := load(c, slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		return !slices.ContainsFunc(begin, func(s string) bool { return strings.HasPrefix(entry, Prefix+s) })
	}))
	c.given = l.given
	for _, check := range checks {
		check(l, c)
	}
	slices.Sort(l.problems)
	return c, l.problems
}

// check finds problems that a single value cannot show. It skips variables that
// did not parse, so that one mistake is one line.
func (l *loader) check(c *Config) {
	l.checkPolicy(c)
	l.checkUpstreams(c)
	l.refuse(len(c.TLSCertFile) == 0, "TLS_CERT_FILE", "must be set: a certificate in PEM, or a directory of them")
	if err := policy.CheckExplainText(c.ExplainText); err != nil {
		l.checkValue(Prefix+"EXPLAIN_TEXT", c.ExplainText, err.Error())
	}
	l.checkAdmin(c)
	l.checkListeners(c)
	l.checkLedger(c)
}

// refuse adds a problem, if it holds, to a variable that did parse, named without Prefix.
func (l *loader) refuse(holds bool, name, problem string) {
	if holds && !l.bad[Prefix+name] {
		l.add(Prefix+name, problem)
	}
}

// checkValue adds a problem, if there is one, to a variable that did parse.
func (l *loader) checkValue(name, value, problem string) {
	if problem != "" && !l.bad[name] {
		l.add(name, badValue{value, problem}.Error())
	}
}

func (l *loader) checkLedger(c *Config) {
	// The URL is not shown: it may hold a password. A path holds none.
	problem := ledger.Check(c.LedgerURL)
	path := "sqlite:/" + strings.TrimLeft(strings.TrimPrefix(c.LedgerURL, "sqlite:"), "/")
	if (strings.HasPrefix(c.LedgerURL, "/") || strings.HasPrefix(c.LedgerURL, "sqlite://")) && strings.Count(path, "/") > 1 && problem != "" && ledger.Check(path) == "" {
		problem = "write " + path + ", with one slash"
	} else if c.LedgerURL+":" == ledger.Memory {
		problem = "write " + ledger.Memory + " with its colon"
	}
	l.checkValue(Prefix+"LEDGER_URL", "", problem)
	l.refuse(c.LedgerIdentity == "hashed" && c.LedgerIdentityKeyFile == "", "LEDGER_IDENTITY_KEY_FILE",
		"must be set, since "+Prefix+"LEDGER_IDENTITY is hashed: name a file that openssl rand -base64 32 has written")
}

// checkPolicy ensures that the policy is stated in one place.
func (l *loader) checkPolicy(c *Config) {
	l.refuse(fips140.Enabled() && (c.PolicyMode == "observe" || c.PolicyMode == "explain"), "POLICY_MODE",
		"FIPS 140 mode forbids TLS 1.0 and 1.1: set it to enforce")
	file := l.given[Prefix+"POLICY_FILE"]
	if file == "" {
		return
	}
	data, _ := os.ReadFile(file)
	p, err := policy.Parse(data)
	for _, key := range []string{"mode", "floor"} {
		// Even if the file says the same: the next edit may change that.
		name := Prefix + "POLICY_" + strings.ToUpper(key)
		value, ok := l.given[name]
		if !ok || l.bad[name] {
			continue
		}
		mend := fmt.Sprintf(", and write %s: %s into %s", key, value, file)
		if err == nil {
			has := map[string]string{"mode": p.Mode().String(), "floor": p.Floor().String()}[key]
			mend += ", where it is " + has
			if has == value {
				mend = ", as " + file + " says the same"
			}
		}
		l.add(name, "set beside "+Prefix+"POLICY_FILE: take it away"+mend)
	}
}

func (l *loader) checkAdmin(c *Config) {
	addr, problem := listenAddr(c.AdminListen)
	if c.AdminListen == "off" {
		problem = "there is always an admin port: on loopback, as 127.0.0.1:9993, it is this host's alone"
	}
	l.checkValue(Prefix+"ADMIN_LISTEN", c.AdminListen, problem)
	c.AdminListen = addr
	l.refuse(c.AdminTLSKeyFile != "" && c.AdminTLSCertFile == "", "ADMIN_TLS_KEY_FILE",
		"set without "+Prefix+"ADMIN_TLS_CERT_FILE: name its certificate there, or take this away")
}

func (l *loader) checkUpstreams(c *Config) {
	for protocol, upstreams := range map[string]Upstreams{"imap": c.UpstreamIMAP, "pop3": c.UpstreamPOP3} {
		for _, u := range upstreams {
			if u.Scheme.Protocol != protocol {
				l.add(Prefix+"UPSTREAM_"+strings.ToUpper(protocol), show(u.String())+": not an address of this protocol; write "+protocol+"://host:port, or move it to "+u.Variable())
			}
		}
	}
	l.refuse(len(c.UpstreamIMAP)+len(c.UpstreamPOP3) == 0 && !l.bad[Prefix+"UPSTREAM_POP3"], "UPSTREAM_IMAP",
		"must be set, or "+Prefix+"UPSTREAM_POP3: the mail server behind Postern, such as imap://127.0.0.1:10143")
	if c.UpstreamServerName != "" {
		name, problem := serverName(c.UpstreamServerName)
		l.checkValue(Prefix+"UPSTREAM_SERVER_NAME", c.UpstreamServerName, problem)
		c.UpstreamServerName = name
	}
}

// checkListeners finds addresses that can be bound only once, and a
// configuration without any listener.
func (l *loader) checkListeners(c *Config) {
	const another = ": choose another port for one of them"
	type taken struct{ name, addr string }
	var all []taken
	for _, way := range c.Bound() {
		for _, addr := range way.Addrs {
			name := way.Variable
			i := slices.IndexFunc(all, func(t taken) bool { return overlap(t.addr, addr) })
			switch {
			case strings.HasSuffix(addr, ":0"):
				continue
			case i < 0:
			case all[i].addr != addr:
				l.add(name, show(addr)+": taken by "+all[i].name+" with "+show(all[i].addr)+another)
			case all[i].name == name:
				l.add(name, show(addr)+": listed twice: leave one out")
			default:
				l.add(name, show(addr)+": taken by "+all[i].name+another)
			}
			all = append(all, taken{name, addr})
		}
	}
	off, parsed := true, len(c.UpstreamIMAP)+len(c.UpstreamPOP3) > 0
	for _, way := range c.listeners() {
		off = off && len(way.Addrs) == 0 && !l.bad[way.Variable]
		parsed = parsed && !l.bad[way.Variable] && !l.bad[way.upstreamVariable]
	}
	l.refuse(off, "LISTEN_IMAPS", "all four listeners are off: give one an address, such as :993")
	l.refuse(parsed && len(c.Listeners()) == 0, "LISTEN_IMAPS",
		"every listener is off or has no upstream: open one, or set "+Prefix+"UPSTREAM_IMAP or "+Prefix+"UPSTREAM_POP3")
}
