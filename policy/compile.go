package policy

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// maxNames is how many rules and candidates a policy may have.
const maxNames = 200

// ruleSet is a bit for each rule, by its place in the policy.
type ruleSet [(maxNames + 63) / 64]uint64

func (s *ruleSet) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s *ruleSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s *ruleSet) and(o *ruleSet) {
	for i := range s {
		s[i] &= o[i]
	}
}

func (s *ruleSet) or(o *ruleSet) {
	for i := range s {
		s[i] |= o[i]
	}
}

func (s ruleSet) without(o *ruleSet) ruleSet {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

// first takes the first rule out of the set; -1 where there is none.
func (s *ruleSet) first() int {
	for i := range s {
		if s[i] != 0 {
			n := bits.TrailingZeros64(s[i])
			s[i] &^= 1 << n
			return i*64 + n
		}
	}
	return -1
}

// tables find the rules that match, at a cost that does not grow with how much
// is listed: each key is one look-up, which gives all rules that do not
// restrict the key, and those that list the value.
type tables struct {
	clients   bart.Table[*ruleSet]
	anyClient ruleSet
	listeners keyTable[string]
	ports     keyTable[uint16]
	versions  keyTable[Version]
	names     keyTable[string]
	// wildcards are names without their *.; they hold no rule that does not
	// restrict the name.
	wildcards map[string]*ruleSet
	ja4s      keyTable[JA4]
	// ja4 are the rules that restrict it: it is worked out for them alone.
	ja4 ruleSet
}

// keyTable is the look-up for one key of a match.
type keyTable[K comparable] struct {
	// others are the rules for a value that none lists.
	others ruleSet
	listed map[K]*ruleSet
}

func (k *keyTable[K]) get(value K) *ruleSet {
	if set, ok := k.listed[value]; ok {
		return set
	}
	return &k.others
}

// keyOf makes the table for one key.
func keyOf[K comparable](rules []Rule, values func(*Match) []K) keyTable[K] {
	table := keyTable[K]{listed: make(map[K]*ruleSet)}
	each := func(f func(i int, list []K)) {
		for i := range rules {
			if m := rules[i].Match; m != nil {
				f(i, values(m))
			} else {
				f(i, nil)
			}
		}
	}
	each(func(i int, list []K) {
		if list == nil {
			table.others.add(i)
		}
	})
	each(func(i int, list []K) {
		for _, v := range list {
			if table.listed[v] == nil {
				set := table.others
				table.listed[v] = &set
			}
			table.listed[v].add(i)
		}
	})
	return table
}

func compile(rules []Rule) *tables {
	t := &tables{
		listeners: keyOf(rules, func(m *Match) []string { return m.Listeners }),
		ports:     keyOf(rules, func(m *Match) []uint16 { return m.Ports }),
		versions:  keyOf(rules, func(m *Match) []Version { return m.Versions }),
		names:     keyOf(rules, func(m *Match) []string { return m.ServerNames }),
		ja4s:      keyOf(rules, (*Match).ja4Bytes),
		wildcards: make(map[string]*ruleSet),
	}
	for name, set := range t.names.listed {
		if parent, ok := strings.CutPrefix(name, "*."); ok {
			t.wildcards[parent] = set
			delete(t.names.listed, name)
		}
	}
	t.compileClients(rules)
	for i := range rules {
		if m := rules[i].Match; m != nil && m.JA4s != nil {
			t.ja4.add(i)
		}
	}
	return t
}

// compileClients has each network hold the rules of those around it too, so
// that the longest match is all that is to be looked up.
func (t *tables) compileClients(rules []Rule) {
	own := make(map[netip.Prefix]*ruleSet)
	for i := range rules {
		m := rules[i].Match
		if m == nil || m.Clients == nil {
			t.anyClient.add(i)
			continue
		}
		for _, p := range m.Clients {
			if own[p] == nil {
				own[p] = new(ruleSet)
			}
			own[p].add(i)
		}
	}
	for p, set := range own {
		whole := t.anyClient
		whole.or(set)
		for bits := range p.Bits() {
			if around, _ := p.Addr().Prefix(bits); own[around] != nil {
				whole.or(own[around])
			}
		}
		t.clients.Insert(p, &whole)
	}
}

// matching are the rules that a handshake matches, but for their JA4.
func (t *tables) matching(version Version, name string, at *ConnInfo) ruleSet {
	set := *t.forClient(at.Client)
	set.and(t.listeners.get(at.Listener))
	set.and(t.ports.get(at.Port))
	set.and(t.versions.get(version))
	t.andName(&set, name)
	return set
}

func (t *tables) forClient(client netip.Addr) *ruleSet {
	if set, ok := t.clients.Lookup(client.Unmap().WithZone("")); ok {
		return set
	}
	return &t.anyClient
}

// andName keeps the rules for a server name, which is compared without regard
// to case (RFC 6066, Section 3).
func (t *tables) andName(set *ruleSet, name string) {
	if len(t.names.listed)+len(t.wildcards) == 0 || name == "" || len(name) > maxServerName {
		set.and(&t.names.others)
		return
	}
	var lower [maxServerName]byte
	n := copy(lower[:], name)
	dot := -1
	for i, c := range lower[:n] {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
		if c == '.' && dot < 0 {
			dot = i
		}
	}
	found := t.names.others
	if exact, ok := t.names.listed[string(lower[:n])]; ok {
		found.or(exact)
	}
	if dot > 0 {
		if wild, ok := t.wildcards[string(lower[dot+1:n])]; ok {
			found.or(wild)
		}
	}
	set.and(&found)
}

// lowerASCII lowers a name as the tables do: a letter that only Unicode knows to
// be another's upper case stays what it is.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// maxServerName is the longest host name (RFC 1035, Section 2.3.4), in bytes.
const maxServerName = 255

// mismatch names the first key of a match that does not hold; empty where all
// do. It says the same as the tables, one rule at a time.
func (m *Match) mismatch(version Version, name string, ja4 func() string, at *ConnInfo) string {
	client := at.Client.Unmap().WithZone("")
	switch {
	case m == nil:
		return ""
	case m.Clients != nil && !slices.ContainsFunc(m.Clients, func(p netip.Prefix) bool { return p.Contains(client) }):
		return "client"
	case m.Listeners != nil && !slices.Contains(m.Listeners, at.Listener):
		return "listener"
	case m.Ports != nil && !slices.Contains(m.Ports, at.Port):
		return "port"
	case m.ServerNames != nil && (len(name) > maxServerName ||
		!slices.ContainsFunc(m.ServerNames, func(n string) bool { return coversName(n, lowerASCII(name)) })):
		return "server_name"
	case m.Versions != nil && !slices.Contains(m.Versions, version):
		return "version"
	case m.JA4s != nil && !slices.Contains(m.JA4s, ja4()):
		return "ja4"
	}
	return ""
}

// coversName reports whether a name of a match, which may begin with *., takes
// a server name. As in certificates, the * is one label (RFC 9525, Section
// 6.3).
func coversName(pattern, name string) bool {
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, found := strings.Cut(name, ".")
		return found && label != "" && rest == parent
	}
	return name == pattern
}
