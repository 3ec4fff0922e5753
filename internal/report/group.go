package report

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/text"
	"postern/policy"
)

// By is the criterion for groups of clients.
type By string

// The criteria. A network counts as one client: an IPv4 address or an IPv6 /64.
const (
	ByAccount  By = "account"
	ByDomain   By = "domain"
	ByNetwork  By = "network"
	BySoftware By = "software"
	// ByProgram is by what it has said or, as inferredName has it, by how it speaks.
	ByProgram By = "program"
)

// ParseBy reads one of them; an empty text stays empty.
func ParseBy(s string) (By, error) {
	if by := By(s); slices.Contains([]By{"", ByAccount, ByDomain, ByNetwork, BySoftware, ByProgram}, by) {
		return by, nil
	}
	return "", fmt.Errorf("%.40q is none of account, domain, network, program, software", s)
}

// Group is some clients together.
type Group struct {
	// Name is the account, domain, network or program; empty if unknown.
	Name string `json:"name"`
	// Clients are distinct; Remaining are those of them that must not remain.
	Clients   int `json:"clients"`
	Remaining int `json:"remaining,omitempty"`
	// Addresses, Accounts, Software and Endpoints hold the first 100 each, in
	// order. Distinct is how many there are.
	Addresses []string `json:"addresses"`
	Accounts  []string `json:"accounts"`
	Software  []string `json:"software"`
	// SpeaksLike, Library and Advice are as in ledger.Client, and as long; SpeaksLike is
	// of programs that have not said their names.
	SpeaksLike []string `json:"speaks_like"`
	Library    []string `json:"library"`
	Advice     []string `json:"advice"`
	Versions   []string `json:"versions"`
	Listeners  []string `json:"listeners"`
	Endpoints  []string `json:"endpoints"`
	Distinct   Distinct `json:"distinct"`
	// Elsewhere: all clients of a group without a name are in others, too. Such
	// groups overlap, and must not be added up.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Login is ok if one of the clients has logged in, else the word that leaves
	// most open.
	Login      ledger.Login  `json:"login"`
	FirstSeen  time.Time     `json:"first_seen"`
	LastSeen   time.Time     `json:"last_seen"`
	Handshakes ledger.Counts `json:"handshakes"`
	// Members are the clients of a group without a name, each as a group: their
	// addresses are all that is known of them.
	Members []Group `json:"members,omitempty"`
}

// Distinct counts what a group lists.
type Distinct struct {
	Addresses  int `json:"addresses"`
	Accounts   int `json:"accounts"`
	Software   int `json:"software"`
	SpeaksLike int `json:"speaks_like"`
	Endpoints  int `json:"endpoints"`
}

// maxListed bounds the lists of a group.
const maxListed = 100

// nameOf returns the name of a login's group.
func nameOf(l *ledger.Identity, by By) string {
	switch by {
	case ByAccount:
		return l.Account
	case ByDomain:
		if at := strings.LastIndexByte(l.Account, '@'); at >= 0 {
			return strings.ToLower(l.Account[at+1:])
		}
		return ""
	}
	if by == ByProgram && l.Software == "" {
		return inferredName(l.SpeaksLike)
	}
	return l.Software
}

// inferredName marks the name of a program that has not said it, which may be that of
// several. A pattern stands for itself.
func inferredName(speaksLike string) string {
	if speaksLike == "" || programs.IsPattern(speaksLike) {
		return speaksLike
	}
	if last := strings.LastIndex(speaksLike, ", "); last >= 0 {
		speaksLike = speaksLike[:last] + " or " + speaksLike[last+len(", "):]
	}
	return "like " + speaksLike
}

// clipNames cuts a name to some columns. Of several that are inferred it has as many as
// fit, and says how many more there are.
func clipNames(name string, columns int) string {
	list := strings.Split(strings.Replace(name, " or ", ", ", 1), ", ")
	for k := len(list) - 1; k > 0 && strings.HasPrefix(name, "like ") && utf8.RuneCountInString(name) > columns; k-- {
		cut := fmt.Sprintf("%s or %d more", strings.Join(list[:k], ", "), len(list)-k)
		if utf8.RuneCountInString(cut) <= columns {
			return cut
		}
	}
	return text.Clip(name, columns, "...")
}

// visit is a row of the ledger in a group, with one of its logins.
type visit struct {
	// net and row number what is one client, and one row; from 1.
	net, row    int64
	counts      int64 // 1: it must not remain
	advised     int64 // 1: there may be advice
	login       int64 // of ledger.Logins
	version     int64
	first, last int64
	handshakes  ledger.Counts
	// until is when the policy no longer lets it in, 0 if never, and rule the
	// number of the exemption that ends then, or 0; told is as in ends. For letters
	// alone.
	until, rule, told                 int64
	listener, addr, endpoint, library string
	ledger.Identity
}

// visitOf is what all visits of a row have.
func visitOf(net, row int64, c *ledger.Client, handshakes ledger.Counts) visit {
	return visit{
		net: net, row: row, login: int64(slices.Index(ledger.Logins, c.Login)), version: int64(c.Version), first: c.First.Unix(), last: c.Last.Unix(),
		handshakes: handshakes, listener: listenerWord(string(c.Listener)), addr: c.Addr.String(), endpoint: c.Endpoint.String(),
		library: c.Library, advised: int64(min(len(c.Advice), 1)),
	}
}

// fields are what a visit is encoded as, but for its row.
func (v *visit) fields() ([14]*int64, [7]*string) {
	h := &v.handshakes
	return [...]*int64{&v.net, &v.counts, &v.login, &v.version, &v.first, &v.last, &h.Observed, &h.Explained, &h.Rejected, &h.Failed, &v.until, &v.rule, &v.told, &v.advised},
		[...]*string{&v.listener, &v.addr, &v.endpoint, &v.library, &v.Account, &v.Software, &v.SpeaksLike}
}

// append encodes a visit so that visits are in the order of rows.
func (v *visit) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(v.row))
	numbers, texts := v.fields()
	for _, n := range numbers {
		b = binary.AppendVarint(b, *n)
	}
	for _, s := range texts {
		b = append(binary.AppendUvarint(b, uint64(len(*s))), *s...)
	}
	return b
}

// readVisit is the reverse of append.
func readVisit(b []byte) (v visit) {
	v.row = int64(binary.BigEndian.Uint64(b))
	b = b[8:]
	numbers, texts := v.fields()
	for _, n := range numbers {
		size := 0
		*n, size = binary.Varint(b)
		b = b[size:]
	}
	all := string(b) // which the texts share
	for _, s := range texts {
		length, size := binary.Uvarint(b)
		*s = all[size : size+int(length)]
		b, all = b[size+int(length):], all[size+int(length):]
	}
	return v
}

// gathering is a group that is being made, of visits in the order of their rows.
// Those of a network are in the order of their addresses.
type gathering struct {
	Group
	scratch                       *scratch
	net, row                      int64 // of the last visit
	counted                       bool  // its network is among those remaining
	addr                          string
	accounts, software, endpoints values
	speaksLike, library, advice   values
	until, rule, told             int64 // as in visit, the first of all
}

// reset begins another group in the same memory.
func (g *gathering) reset(name string) {
	*g = gathering{
		Group:    Group{Name: name, Addresses: g.Addresses[:0], Versions: g.Versions[:0], Listeners: g.Listeners[:0]},
		scratch:  g.scratch,
		accounts: values{few: g.accounts.few[:0]}, software: values{few: g.software.few[:0]}, endpoints: values{few: g.endpoints.few[:0]},
		speaksLike: values{few: g.speaksLike.few[:0]}, library: values{few: g.library.few[:0]}, advice: values{few: g.advice.few[:0]},
	}
}

func (g *gathering) add(v *visit) {
	if v.net != g.net {
		g.net, g.counted = v.net, false
		g.Clients++
	}
	if v.counts == 1 && !g.counted {
		g.counted = true
		g.Remaining++
	}
	if v.row != g.row {
		g.addRow(v)
		g.endpoints.add(g.scratch, v.endpoint)
	}
	g.accounts.add(g.scratch, v.Account)
	g.software.add(g.scratch, v.Software)
	g.speaksLike.add(g.scratch, v.SpeaksLike)
	g.library.add(g.scratch, v.library)
	if v.advised == 1 {
		g.advice.add(g.scratch, programs.Builtin.Advise(v.Software, v.SpeaksLike, v.library))
	}
}

func (g *gathering) addRow(v *visit) {
	first, last := time.Unix(v.first, 0).UTC(), time.Unix(v.last, 0).UTC()
	if g.row == 0 {
		g.FirstSeen, g.LastSeen, g.Login = first, last, ledger.Logins[len(ledger.Logins)-1]
		g.until, g.rule, g.told = v.until, v.rule, v.told
	}
	g.row = v.row
	g.FirstSeen, g.LastSeen = text.Earlier(g.FirstSeen, first), text.Later(g.LastSeen, last)
	if v.login >= 0 && int(v.login) < slices.Index(ledger.Logins, g.Login) {
		g.Login = ledger.Logins[v.login]
	}
	if v.until != 0 && (g.until == 0 || v.until < g.until) || v.until == g.until && v.rule < g.rule {
		g.until, g.rule, g.told = v.until, v.rule, v.told
	}
	g.Handshakes.Add(v.handshakes)
	if version := policy.Version(v.version).String(); !slices.Contains(g.Versions, version) {
		g.Versions = append(g.Versions, version)
	}
	if !slices.Contains(g.Listeners, v.listener) {
		g.Listeners = append(g.Listeners, v.listener)
	}
	if v.addr != g.addr {
		g.addr = v.addr
		g.Distinct.Addresses++
		if i, _ := slices.BinarySearch(g.Addresses, v.addr); i < maxListed {
			g.Addresses = slices.Insert(g.Addresses, i, v.addr)
			g.Addresses = g.Addresses[:min(len(g.Addresses), maxListed)]
		}
	}
}

// done returns the group, made harmless.
func (g *gathering) done() *Group {
	g.Accounts, g.Distinct.Accounts = g.accounts.done()
	g.Software, g.Distinct.Software = g.software.done()
	g.Endpoints, g.Distinct.Endpoints = g.endpoints.done()
	g.SpeaksLike, g.Distinct.SpeaksLike = g.speaksLike.done()
	g.Library, _ = g.library.done()
	g.Advice, _ = g.advice.done()
	slices.Sort(g.Versions)
	slices.Sort(g.Listeners)
	clean(&g.Group)
	return &g.Group
}

// values are the distinct texts of a group. Where they are many they are sorted
// on disk.
type values struct {
	few  []string // sorted
	more *sorter
}

const (
	fewValues   = 1024
	valueBudget = 512 << 10
)

func (v *values) add(s *scratch, value string) {
	at, found := slices.BinarySearch(v.few, value)
	if found || value == "" {
		return
	}
	if v.few = slices.Insert(v.few, at, value); len(v.few) == fewValues {
		v.spill(s)
	}
}

// spill has the sorter take them all.
func (v *values) spill(s *scratch) {
	if v.more == nil {
		v.more = &sorter{scratch: s, budget: valueBudget}
	}
	for _, value := range v.few {
		v.more.add([]byte(value))
	}
	v.few = v.few[:0]
}

// done returns the first of them, in order, and how many there are.
func (v *values) done() (first []string, n int) {
	if v.more == nil {
		return v.few[:min(len(v.few), maxListed)], len(v.few)
	}
	return v.merged()
}

// merged is done for those on disk. By itself, it costs a group in memory nothing.
func (v *values) merged() (first []string, n int) {
	v.spill(v.more.scratch)
	var last []byte
	for value := range v.more.sorted() {
		if n == 0 || !bytes.Equal(value, last) {
			n++
			last = append(last[:0], value...)
			if len(first) < maxListed {
				first = append(first, string(value))
			}
		}
	}
	return first, n
}
