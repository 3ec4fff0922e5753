// Package ledger measures Postern with a large ledger: it fills one, gives a copy
// each to an older binary and to the one to be judged, and asks both the same by
// turns.
package ledger

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	day      = 24 * 3600
	history  = 60 * day // the filled ledger goes back so far
	prints   = 300      // fingerprints in all
	members  = 10       // rows of a block
	networks = 7        // networks of a block
)

// Facts are what a ledger of so many rows holds, each a client with one
// fingerprint on one listener. The same facts come of the same two numbers.
type Facts struct {
	Rows int
	Now  int64 // in Unix seconds
}

// Since is a time two weeks before Now. No client was last seen within a minute
// of it, so that a window from there on is the same whoever asks in which second.
func (f Facts) Since() time.Time { return time.Unix(f.Now-14*day, 0).UTC() }

// slots are the networks of the rows of a block: five are alone in theirs; the
// sixth has one client on two listeners, the seventh three fingerprints.
var slots = [members]struct{ network, member int }{{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {5, 1}, {6, 0}, {6, 1}, {6, 2}}

// sighting is a row of the table of that name, and what follows from it.
type sighting struct {
	id, network, added, first, last       int64
	client, listener, name, version, ja4  string
	reason                                string
	port                                  int
	observed, explained, rejected, failed int64
	loginOK, loginFailed, scanner         int64
	account, software                     string // empty where none is known
}

// places are the listeners with their ports.
var places = [4]struct {
	listener string
	port     int
}{{"imaps", 993}, {"imap", 143}, {"pop3s", 995}, {"pop3", 110}}

var programs = []string{"Outlook 14.0", "K-9 Mail 4.2", "fetchmail 6.3", "Apple Mail 7.3", "Thunderbird 31", "", "HP MFP M528",
	"Brother NC-8900h", "JavaMail 1.4", "PHP imap"}

// character is what kind of client there is in a network.
type character int

const (
	loggedIn character = iota
	letIn              // and has not logged in
	turnedAway
	fallback // this one and those below are noise
	brokeOff
	badPassword
	scanner
)

// shares are thousandths of networks, in the order of the characters.
var shares = [...]int{642, 92, 184, 22, 30, 20, 10}

// sighting returns the i-th row.
func (f Facts) sighting(i int) sighting {
	slot := slots[i%members]
	n := i/members*networks + slot.network
	net, own := newRandom(1, n), newRandom(2, i)
	print := fingerprint(net.cubed() * prints)
	if slot.network == networks-1 {
		print = (print + 7*fingerprint(slot.member)) % prints
	}
	kind := net.character()
	addr := address(n, net.below(100) < 15, slot.member)
	s := sighting{id: int64(own.next() >> 1), client: addr.String(), network: networkNumber(addr),
		version: print.version(), ja4: print.ja4(), reason: print.reason()}
	place := places[(net.below(8)*5/8+slot.member)%len(places)]
	s.listener, s.port = place.listener, place.port
	s.name = []string{"", "", "imap.example.org", "pop.example.org"}[net.below(4)]
	f.time(&s, kind, &own)
	s.behave(kind, &own)
	if s.loginOK > 0 && (slot.network != 5 || slot.member == 0) && own.below(100) < 87 {
		s.account = account(i*3/4, &own)
		if place.port == 993 || place.port == 143 {
			s.software = programs[own.below(len(programs))]
		}
	}
	return s
}

// time says when it was seen: the more recent, the more of them.
func (f Facts) time(s *sighting, kind character, own *random) {
	u := own.float()
	s.last = f.Now - 1 - int64(u*u*(history-2))
	if d := s.last - f.Since().Unix(); -60 < d && d < 60 {
		s.last += 120
	}
	longest := min(30*day, s.last-(f.Now-history))
	if kind == scanner {
		longest = min(longest, 600)
	}
	s.first = s.last - int64(own.float()*float64(longest))
	s.added = s.first
}

// behave says what came of its handshakes and logins.
func (s *sighting) behave(kind character, own *random) {
	n := func(most int) int64 { return int64(1 + own.below(most)) }
	s.failed = int64(own.below(40) / 39)
	switch kind {
	case loggedIn:
		s.observed, s.rejected = n(200), int64(own.below(50))
		s.loginOK = s.observed
	case letIn:
		s.observed = n(50)
	case turnedAway:
		s.rejected, s.explained = n(50), int64(own.below(10))
	case fallback:
		s.reason, s.rejected = "fallback", n(5)
	case brokeOff:
		s.failed = n(20)
	case badPassword:
		s.observed = n(100)
		s.loginFailed = s.observed
	case scanner:
		s.observed, s.scanner = n(10), 1|2
	}
}

// days are the days of a sighting, ascending, with its handshakes shared among
// them: the first, the last, and one between.
func (s *sighting) days() (list []int64, counts [][4]int64) {
	list = slices.Compact([]int64{s.first / day, (s.first + s.last) / 2 / day, s.last / day})
	counts = make([][4]int64, len(list))
	for k, all := range [4]int64{s.observed, s.explained, s.rejected, s.failed} {
		for d := range list {
			counts[d][k] = all / int64(len(list))
		}
		counts[len(list)-1][k] += all % int64(len(list))
	}
	return list, counts
}

// account is the name of the n-th account; some are those of many devices.
func account(n int, own *random) string {
	user := fmt.Sprintf("user%d", n)
	if own.below(50) == 0 {
		n /= 1000
		user = fmt.Sprintf("scanner%d", n)
	}
	d := newRandom(3, n)
	switch share := d.below(100); {
	case share < 40:
		return user + "@example.org"
	case share < 65:
		return user + "@example.com"
	case share < 80:
		return user + "@example.net"
	}
	return fmt.Sprintf("%s@branch%d.example.org", user, d.below(200))
}

// address is that of a member of the n-th network, which is an IPv4 address or
// an IPv6 /64.
func address(n int, ipv6 bool, member int) netip.Addr {
	mixed := uint32(n) * 2654435761 % (1 << 28) // odd, so that no two are the same
	if !ipv6 {
		mixed += 11 << 24
		return netip.AddrFrom4([4]byte{byte(mixed >> 24), byte(mixed >> 16), byte(mixed >> 8), byte(mixed)})
	}
	return netip.AddrFrom16([16]byte{0x2a, 0, byte(mixed >> 24), byte(mixed >> 16), byte(mixed >> 8), byte(mixed), 0, 1, 15: byte(1 + member)})
}

// networkNumber is the network of an address as the table has it.
func networkNumber(a netip.Addr) int64 {
	number := func(b []byte) (n int64) {
		for _, c := range b {
			n = n<<8 | int64(c)
		}
		return n
	}
	if a.Is4() {
		return -1<<48 | number(a.AsSlice())
	}
	return number(a.AsSlice()[:8])
}

// fingerprint is one of the ways to say hello.
type fingerprint int

// version is what a share of the fingerprints offers, in hundredths up to below.
type version struct {
	below      int
	label, ja4 string
	number     uint16
}

var versions = []version{{50, "tls1.0", "t10", 0x301}, {75, "tls1.1", "t11", 0x302}, {87, "ssl3", "ts3", 0x300}, {100, "tls1.2", "t12", 0x303}}

func (f fingerprint) index() int {
	d := newRandom(4, int(f))
	share := d.below(100)
	return slices.IndexFunc(versions, func(v version) bool { return share < v.below })
}

func (f fingerprint) version() string { return versions[f.index()].label }

// reason is why a floor of TLS 1.2 refuses it.
func (f fingerprint) reason() string {
	if f.version() == "tls1.2" {
		return "cipher"
	}
	return "version"
}

func (f fingerprint) ja4() string {
	d := newRandom(5, int(f))
	return fmt.Sprintf("%sd%02d%02d00_%012x_%012x", versions[f.index()].ja4, 5+d.below(55), d.below(10), d.next()>>16, d.next()>>16)
}

// hello is the JSON that is kept of it.
func (f fingerprint) hello() string {
	suites := []uint16{0x0005, 0x000a, 0x0004}
	if f.reason() == "version" {
		suites = []uint16{0xc013, 0xc014, 0x002f, 0x0035, 0x000a}
	}
	b, err := json.Marshal(map[string][]uint16{"Versions": {versions[f.index()].number}, "CipherSuites": suites, "Groups": {23, 24, 25}})
	if err != nil {
		panic(err) // numbers can always be written
	}
	return string(b)
}

// random yields numbers that are the same in every run (splitmix64).
type random uint64

func newRandom(stream, n int) random {
	d := random(uint64(stream)<<56 ^ uint64(n))
	return random(d.next())
}

func (d *random) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (d *random) below(n int) int { return int(d.next() >> 33 % uint64(n)) }

// float is from 0 to 1, and cubed is more often near 0.
func (d *random) float() float64 { return float64(d.next()>>11) / (1 << 53) }

func (d *random) cubed() float64 { u := d.float(); return u * u * u }

func (d *random) character() character {
	at := d.below(1000)
	for kind, share := range shares {
		if at -= share; at < 0 {
			return character(kind)
		}
	}
	return loggedIn
}
