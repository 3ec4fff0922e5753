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
	"postern/policy"
)

// section is one list of groups.
type section struct {
	number byte // in the order in which they are written, from 1; 0 is not wanted
	by     By
	status string // in CSV
	answer bool   // of a replay
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
	// open is of the network that is being read: all of it, or the rows without a
	// name. hasName: it has others, too.
	open    gathering
	hasName bool
	best    [2]best
}

// lists groups clients with bounded memory. Visits are sorted so that each group
// is completed behind the other, and the groups are sorted again, into the order
// in which they are written: by section; named groups first, then the members of
// the one without a name; most clients first.
type lists struct {
	scratch  scratch
	seed     maphash.Seed
	visits   sorter
	groups   sorter
	sections []*section // the first is not wanted
	touched  []*section // by the network that is being read
	style    *Style
	now      time.Time
	rules    []*policy.Rule // as visit.rule counts them, from 1
	net, row int64
	buffer   []byte

	sorted  source
	current []byte
	err     error
}

func newLists(dir string, budget int, now time.Time, s *Style) *lists {
	l := &lists{scratch: scratch{dir: dir}, seed: maphash.MakeSeed(), style: s, now: now, sections: []*section{{}}}
	budget = cmp.Or(budget, sortBudget)
	l.visits, l.groups = sorter{scratch: &l.scratch, budget: budget}, sorter{scratch: &l.scratch, budget: budget}
	return l
}

// section adds a section, to be written behind the others.
func (l *lists) section(s section) *section {
	s.number = byte(len(l.sections))
	s.nameless.scratch, s.open.scratch = &l.scratch, &l.scratch
	if n := l.style.bound(math.MaxInt); n <= mostBest && !s.letters {
		s.best = [2]best{{most: n}, {most: n}}
	}
	l.sections = append(l.sections, &s)
	return &s
}

// beginNetwork is called before the rows of a network are put, and brings them into
// the order of their addresses.
func (l *lists) beginNetwork(clients []ledger.Client) {
	l.net++
	byAddress := func(a, b ledger.Client) int { return a.Addr.Compare(b.Addr) }
	if !slices.IsSortedFunc(clients, byAddress) {
		slices.SortStableFunc(clients, byAddress)
	}
}

// put adds a row to a section. Its visit has all but account and program.
func (l *lists) put(s *section, v *visit, logins []ledger.Identity) error {
	if s.number == 0 {
		return nil
	}
	hasName := false
	for i := range logins {
		name := nameOf(&logins[i], s.by)
		if s.by == ByNetwork || name == "" {
			continue
		}
		hasName = true
		v.as(&logins[i])
		b := append(l.buffer[:0], 0, 0, 0, 0, 0, 0, 0, 0, s.number)
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		binary.BigEndian.PutUint64(b, maphash.Bytes(l.seed, b[8:]))
		l.buffer = v.append(b)
		if err := l.visits.add(l.buffer); err != nil {
			return err
		}
	}
	if len(l.touched) == 0 || !slices.Contains(l.touched, s) {
		l.touched = append(l.touched, s)
	}
	s.hasName = s.hasName || hasName
	if hasName || s.named {
		return nil
	}
	return l.putNameless(s, v, logins)
}

func (l *lists) putNameless(s *section, v *visit, logins []ledger.Identity) error {
	if len(logins) == 0 {
		logins = []ledger.Identity{{}}
	}
	for i := range logins {
		v.as(&logins[i])
		if s.by != ByNetwork {
			if err := s.nameless.add(v); err != nil {
				return err
			}
		}
		if s.by != ByNetwork && !l.style.members() {
			s.open.row = v.row // there is one
		} else if err := s.open.add(v); err != nil {
			return err
		}
	}
	return nil
}

// endNetwork: all rows of a network have been put.
func (l *lists) endNetwork(clients []ledger.Client) error {
	for _, s := range l.touched {
		if s.open.row != 0 {
			kind := members
			s.open.Name = clients[0].Network()
			if s.by == ByNetwork {
				kind = named
			} else if !s.hasName {
				s.alone++
			}
			if err := l.complete(s, kind, &s.open); err != nil {
				return err
			}
			s.open.reset("")
		}
		s.hasName = false
	}
	l.touched = l.touched[:0]
	return nil
}

// complete has a group sorted among the others of its kind.
func (l *lists) complete(s *section, kind byte, g *gathering) error {
	if kind == named {
		if s.keep != nil && !s.keep(&g.Group) {
			return nil
		}
		s.count++
	}
	if l.style.Summary || kind == members && !l.style.members() {
		return nil
	}
	b := s.key(l.buffer[:0], kind)
	if s.letters {
		b = append(append(b, l.letter(g).Owner...), 0)
		b = binary.BigEndian.AppendUint64(b, uint64(g.until-1)) // none is behind all
	} else {
		b = binary.BigEndian.AppendUint64(b, math.MaxUint64-uint64(g.Clients))
		b = binary.BigEndian.AppendUint64(b, math.MaxUint64-uint64(g.LastSeen.Unix()))
	}
	b = append(b, g.Name...)
	l.buffer = b
	best := &s.best[kind]
	if best.worst != nil && bytes.Compare(b, best.worst) > 0 {
		return nil
	}
	group, err := g.done()
	if err != nil {
		return err
	}
	key := len(b)
	if s.letters {
		letter := l.letter(g)
		letter.clean()
		b = l.style.appendLetter(b, letter)
	} else {
		b = l.style.appendGroup(b, s, group, kind == members)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(key))
	l.buffer = b
	if best.most > 0 {
		best.add(b)
		return nil
	}
	return l.groups.add(b)
}

// key begins that by which a group is sorted.
func (s *section) key(b []byte, kind byte) []byte {
	return append(b, s.number, kind)
}

// fill makes a section of groups in memory.
func (l *lists) fill(of section, all []Group) *section {
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
		for i := range list {
			l.line(s, members, i, l.style.appendGroup(nil, s, &list[i], true))
		}
		all = all[:n]
	}
	for i := range all {
		l.line(s, named, i, l.style.appendGroup(nil, s, &all[i], false))
	}
	return s
}

// line adds one that is written as the one with that number.
func (l *lists) line(s *section, kind byte, number int, line []byte) {
	b := binary.BigEndian.AppendUint64(s.key(nil, kind), uint64(number))
	l.err = cmp.Or(l.err, l.groups.add(binary.BigEndian.AppendUint32(append(b, line...), uint32(len(b)))))
}

// best keeps the first so many of some records.
type best struct {
	most    int // 0 where all are wanted
	records [][]byte
	worst   []byte // of those kept at least
}

// mostBest bounds it: more are sorted with all the others.
const mostBest = 1000

func (b *best) add(record []byte) {
	b.records = append(b.records, bytes.Clone(record))
	if len(b.records) == 2*b.most {
		slices.SortFunc(b.records, bytes.Compare)
		b.records = b.records[:b.most]
		b.worst = b.records[b.most-1]
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
			if _, err := g.done(); err != nil {
				return err
			}
			if s.keep == nil || s.keep(&g.Group) {
				s.count++
			} else {
				g.row = 0
			}
		}
		for i := range s.best {
			for _, record := range s.best[i].records {
				if err := l.groups.add(record); err != nil {
					return err
				}
			}
		}
	}
	return l.sort()
}

func (l *lists) sort() error {
	if l.err == nil {
		l.sorted, l.err = l.groups.sorted()
	}
	if l.err == nil {
		l.advance()
	}
	return l.err
}

// completeVisited completes the groups with a name, one behind the other.
func (l *lists) completeVisited(ctx context.Context) error {
	sorted, err := l.visits.sorted()
	if err != nil {
		return err
	}
	var of []byte // the section and name that a record begins with
	g := &gathering{scratch: &l.scratch}
	for n := 0; ; n++ {
		record, err := sorted()
		if err != nil {
			return err
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if of != nil && (record == nil || !bytes.HasPrefix(record, of)) {
			if err := l.complete(l.sections[of[8]], named, g); err != nil {
				return err
			}
			of = of[:0]
		}
		if record == nil {
			return nil
		}
		length, size := binary.Uvarint(record[9:])
		end := 9 + size + int(length)
		if len(of) == 0 {
			of = append(of, record[:end]...)
			g.reset(string(record[9+size : end]))
		}
		v := readVisit(record[end:])
		if err := g.add(&v); err != nil {
			return err
		}
	}
}

func (l *lists) advance() { l.current, l.err = l.sorted() }

func (l *lists) close() { l.scratch.close() }

// The kinds of groups of a section: those with a name, or the networks if it is by
// network, and the members of the one without.
const (
	named byte = iota
	members
)

// written yields the named groups or the members of a section as they were
// encoded, once, and none of a section before them any more.
func (l *lists) written(s *section, kind byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		of := s.key(nil, kind)
		for l.current != nil && bytes.Compare(l.current[:len(of)], of) < 0 {
			l.advance()
		}
		for l.current != nil && bytes.HasPrefix(l.current, of) {
			end := len(l.current) - 4
			if !yield(l.current[binary.BigEndian.Uint32(l.current[end:]):end]) {
				return
			}
			l.advance()
		}
	}
}
