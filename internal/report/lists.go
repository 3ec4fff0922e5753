package report

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"time"

	"postern/internal/ledger"
)

// section is one list of groups.
type section struct {
	number uint16 // in the order in which they are written, from 1; 0 is not wanted
	by     By
	status string // in CSV
	answer bool   // of a replay
	// members has the networks of the group without a name, by themselves: member is
	// that it is such a section.
	members *section
	member  bool
	// exemption is that of its clients, or nil.
	exemption *Exemption
	// letters are made of its groups, and for those without an account none.
	letters bool
	// named leaves out the group without a name.
	named bool
	keep  func(*Group) bool // nil for all
	// count is the number of groups.
	count int

	nameless gathering
	alone    int // networks that are in no group with a name
	// open is the network that is being read. hasName: it has rows with a name.
	open    gathering
	hasName bool
	// groups are its groups, most clients first, or those inMemory, where nothing has
	// to be sorted.
	groups   sorter
	inMemory iter.Seq[[]byte]
}

// lists groups clients with bounded memory. Visits are sorted so that each group
// is completed behind the other, and the groups of each section are sorted again.
type lists struct {
	scratch  scratch
	seed     maphash.Seed
	visits   sorter
	sections []*section // the first is not wanted
	touched  []*section // by the network that is being read
	style    *Style
	now      time.Time
	rules    []*Exemption // as visit.rule counts them, from 1
	net, row int64
	buffer   []byte
}

func newLists(dir string, budget int, now time.Time, s *Style) *lists {
	l := &lists{scratch: scratch{dir: dir}, seed: maphash.MakeSeed(), style: s, now: now, sections: []*section{{}}}
	l.visits = sorter{scratch: &l.scratch, budget: cmp.Or(budget, sortBudget)}
	return l
}

// section adds a section, to be written behind the others.
func (l *lists) section(s section) *section {
	s.number = uint16(len(l.sections))
	s.nameless.scratch, s.open.scratch, s.groups.scratch = &l.scratch, &l.scratch, &l.scratch
	if n := l.style.bound(math.MaxInt); n <= mostBest && !s.letters {
		s.groups.most = n
	}
	l.sections = append(l.sections, &s)
	if s.members = l.sections[0]; l.style.members() && s.by != ByNetwork && !s.named {
		s.members = l.section(section{by: ByNetwork, member: true, status: s.status, answer: s.answer, exemption: s.exemption})
	}
	return &s
}

// scan has the rows of each network put by put, in the order of their addresses, and
// completes all groups.
func (l *lists) scan(ctx context.Context, from Source, scope ledger.Scope, put func([]ledger.Client) error) error {
	byAddress := func(a, b ledger.Client) int { return a.Addr.Compare(b.Addr) }
	err := from(ctx, scope, func(clients []ledger.Client) error {
		l.net++
		if !slices.IsSortedFunc(clients, byAddress) {
			slices.SortStableFunc(clients, byAddress)
		}
		if err := put(clients); err != nil {
			return err
		}
		l.endNetwork(clients)
		return l.scratch.err
	})
	if err != nil {
		return err
	}
	return l.finish(ctx)
}

// put adds a row to a section. Its visit has all but account and program.
func (l *lists) put(s *section, v *visit, logins []ledger.Identity) {
	if s.number == 0 {
		return
	}
	hasName := false
	for i := range logins {
		name := nameOf(&logins[i], s.by)
		if s.by == ByNetwork || name == "" {
			continue
		}
		hasName = true
		v.Identity = logins[i]
		b := binary.BigEndian.AppendUint16(append(l.buffer[:0], 0, 0, 0, 0, 0, 0, 0, 0), s.number)
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		binary.BigEndian.PutUint64(b, maphash.Bytes(l.seed, b[8:]))
		l.buffer = v.append(b)
		l.visits.add(l.buffer)
	}
	if len(l.touched) == 0 || !slices.Contains(l.touched, s) {
		l.touched = append(l.touched, s)
	}
	s.hasName = s.hasName || hasName
	if !hasName && !s.named {
		l.putNameless(s, v, logins)
	}
}

func (l *lists) putNameless(s *section, v *visit, logins []ledger.Identity) {
	if len(logins) == 0 {
		logins = []ledger.Identity{{}}
	}
	into := &s.open
	if s.by != ByNetwork {
		into = &s.nameless
		l.put(s.members, v, logins)
	}
	for i := range logins {
		v.Identity = logins[i]
		into.add(v)
	}
}

// count counts the network that is being read, once.
func (l *lists) count(n *int, last *int64) {
	if *last != l.net {
		*last = l.net
		*n++
	}
}

// endNetwork: all rows of a network have been put.
func (l *lists) endNetwork(clients []ledger.Client) {
	for _, s := range l.touched {
		if s.by == ByNetwork {
			s.open.Name = clients[0].Network()
			l.complete(s, &s.open)
			s.open.reset("")
		} else if s.nameless.net == l.net && !s.hasName {
			s.alone++
		}
		s.hasName = false
	}
	l.touched = l.touched[:0]
}

// complete has a group sorted among the others of its section.
func (l *lists) complete(s *section, g *gathering) {
	if s.keep != nil && !s.keep(&g.Group) {
		return
	}
	s.count++
	if l.style.Summary {
		return
	}
	b := l.buffer[:0]
	if s.letters {
		b = append(append(b, l.letter(g).Owner...), 0)
		b = binary.BigEndian.AppendUint64(b, uint64(g.until-1)) // none is behind all
	} else {
		b = binary.BigEndian.AppendUint64(b, math.MaxUint64-uint64(g.Clients))
		b = binary.BigEndian.AppendUint64(b, math.MaxUint64-uint64(g.LastSeen.Unix()))
	}
	b = append(b, g.Name...)
	l.buffer = b
	if s.groups.worst != nil && bytes.Compare(b, s.groups.worst) > 0 {
		return
	}
	group := g.done()
	key := len(b)
	if s.letters {
		b = l.style.appendLetter(b, l.letter(g))
	} else {
		b = l.style.appendGroup(b, s, group)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(key))
	l.buffer = b
	s.groups.budget = max(2*l.visits.budget/len(l.sections), leastBudget)
	s.groups.add(b)
}

// leastBudget is that of a section among many, and mostBest the most of its groups
// that are kept without sorting all of them.
const (
	leastBudget = 64 << 10
	mostBest    = 1000
)

// fill makes a section of groups in memory, and takes them out of there.
func (l *lists) fill(of section, from *[]Group) *section {
	all := *from
	*from = []Group{}
	if of.keep != nil {
		all = slices.DeleteFunc(slices.Clone(all), func(g Group) bool { return !of.keep(&g) })
	}
	s := l.section(of)
	s.count = len(all)
	if n := len(all) - 1; n >= 0 && all[n].Name == "" && s.by != ByNetwork {
		s.nameless = gathering{Group: all[n], row: 1}
		list := all[n].Members
		if len(list) == 0 {
			list = all[n:]
		}
		s.members.count, s.members.inMemory = len(list), encoded(list, func(g *Group) []byte { return l.style.appendGroup(nil, s.members, g) })
		all = all[:n]
	}
	s.inMemory = encoded(all, func(g *Group) []byte { return l.style.appendGroup(nil, s, g) })
	return s
}

// encoded yields all of a list as they are written, each as it stands behind no key.
func encoded[T any](all []T, encode func(*T) []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range all {
			if !yield(binary.BigEndian.AppendUint32(encode(&all[i]), 0)) {
				return
			}
		}
	}
}

// finish completes all groups.
func (l *lists) finish(ctx context.Context) error {
	if err := l.completeVisited(ctx); err != nil {
		return err
	}
	for _, s := range l.sections {
		if g := &s.nameless; g.row != 0 {
			g.Elsewhere = s.alone == 0
			g.done()
			if s.keep == nil || s.keep(&g.Group) {
				s.count++
			} else {
				g.row = 0
			}
		}
	}
	return l.scratch.err
}

// completeVisited completes the groups with a name, one behind the other.
func (l *lists) completeVisited(ctx context.Context) error {
	var of []byte // the section and name that a record begins with
	g := &gathering{scratch: &l.scratch}
	complete := func() {
		if len(of) > 0 {
			l.complete(l.sections[binary.BigEndian.Uint16(of[8:])], g)
			of = of[:0]
		}
	}
	n := 0
	for record := range l.visits.sorted() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !bytes.HasPrefix(record, of) {
			complete()
		}
		const begin = 8 + 2 // behind the hash and the section
		length, size := binary.Uvarint(record[begin:])
		end := begin + size + int(length)
		if len(of) == 0 {
			of = append(of, record[:end]...)
			g.reset(string(record[begin+size : end]))
		}
		v := readVisit(record[end:])
		g.add(&v)
	}
	complete()
	return ctx.Err()
}

func (l *lists) close() { l.scratch.close() }

// written yields the first groups of a section as they were encoded, but for the one
// without a name.
func (l *lists) written(s *section, most int) iter.Seq[[]byte] {
	groups := s.inMemory
	if groups == nil {
		groups = s.groups.sorted()
	}
	return func(yield func([]byte) bool) {
		n := 0
		for record := range groups {
			end := len(record) - 4
			if n++; n > most || !yield(record[binary.BigEndian.Uint32(record[end:]):end]) {
				return
			}
		}
	}
}
