package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/policy"
	"postern/proxy"
)

// Scope is what Scan reads.
type Scope struct {
	// Since leaves out clients that were not seen since then; none, if it is zero.
	Since time.Time
	// Logins reads accounts and programs.
	Logins bool
	// With is another ledger whose clients are read too, such as a candidate's; nil for none.
	With *Store
	// Days reads the handshakes of each day, in UTC, from this one on; of none, if
	// it is zero.
	Days time.Time
	// Progress is called with the share that has been read, several times a second
	// in a large ledger; nil is not called.
	Progress func(done float64)
}

// Day holds a client's handshakes of one day in UTC.
type Day struct {
	// Number counts days since 1970.
	Number int64
	Counts Counts
}

// Date returns the beginning of the day.
func (d Day) Date() time.Time { return time.Unix(d.Number*secondsADay, 0).UTC() }

// chunkRows is about how many sightings are read at once: they are in memory.
const chunkRows = 4000

// Scan calls each once for every network, in no particular order, with all of its
// clients in the scope, noise included. The clients are valid until each returns;
// its error ends the scan. Other connections read ahead meanwhile, some thousand
// clients, so that memory does not depend on the size of the ledger.
func (s *Store) Scan(ctx context.Context, scope Scope, each func(clients []Client) error) error {
	if scope.With != nil && errors.Is(scope.With.there(ctx), errNotRemembered) {
		scope.With = nil
	}
	days, err := s.daysSince(ctx, scope.Days)
	if err != nil {
		return err
	}
	return chunks(ctx, s, func(ctx context.Context, r reader, first, last int64) ([]Client, int, error) {
		c := chunk{ctx: ctx, store: s, reader: r, first: first, last: last, texts: make(interned), clients: make([]Client, 0, chunkRows+chunkRows/2)}
		c.read(scope, days)
		if scope.With != nil {
			other := chunk{ctx: ctx, store: scope.With, reader: tables{r, scope.With}, first: first, last: last, texts: c.texts}
			other.read(scope, days)
			c.clients, c.err = append(c.clients, other.clients...), cmp.Or(c.err, other.err)
			slices.SortStableFunc(c.clients, func(a, b Client) int { return cmp.Compare(a.id, b.id) })
		}
		c.gather()
		return c.clients, len(c.clients), c.err
	}, func(list []Client, done float64) error {
		for clients := range Runs(list, func(c *Client) int64 { return c.network }) {
			if err := each(clients); err != nil {
				return err
			}
		}
		if scope.Progress != nil {
			scope.Progress(done)
		}
		return nil
	})
}

// chunks reads the tables in ranges of keys that hold whole networks. Each of some
// goroutines reads its part of them, by read, which returns how many rows it found: that
// many decide how long the next range is. use gets what was read, with the share that is
// done.
func chunks[T any](ctx context.Context, s *Store, read func(ctx context.Context, r reader, first, last int64) (rows T, n int, err error),
	use func(part T, done float64) error) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	type part struct {
		rows T
		size uint64
	}
	parts := make(chan part)
	stoppable, stop := context.WithCancel(ctx)
	defer stop()
	readers, reading := errgroup.WithContext(stoppable)
	readRange := func(at, end uint64) error { // of hashes of networks
		r, err := s.reader(reading)
		if err != nil {
			return err
		}
		defer r.close()
		for size := uint64(64); at < end; {
			size = min(size, end-at)
			rows, n, err := read(reading, r, int64(at<<(63-bucketBits)), int64((at+size)<<(63-bucketBits)-1))
			if err != nil {
				return err
			}
			select {
			case parts <- part{rows, size}:
			case <-reading.Done():
				return reading.Err()
			}
			at += size
			size = min(max(1, size*chunkRows/uint64(max(n, 1))), 64*size)
		}
		return nil
	}
	for i := range uint64(scanReaders) {
		readers.Go(func() (err error) {
			Background(func() { err = readRange(i<<bucketBits/scanReaders, (i+1)<<bucketBits/scanReaders) })
			return err
		})
	}
	go func() {
		readers.Wait()
		close(parts)
	}()
	var err error
	done := uint64(0)
	for p := range parts {
		done += p.size
		if err == nil {
			if err = use(p.rows, float64(done)/(1<<bucketBits)); err != nil {
				stop()
			}
		}
	}
	if failed := readers.Wait(); err == nil && failed != nil {
		return fmt.Errorf("reading the ledger: %w", cmp.Or(ctx.Err(), failed))
	}
	return err
}

// scanReaders is how many connections read at once.
const scanReaders = 2

// chunk holds the clients of some networks.
type chunk struct {
	ctx         context.Context
	store       *Store
	reader      reader
	first, last int64 // keys
	clients     []Client
	texts       interned
	err         error
}

// clientColumns are those of sightings s that make a client; at placeColumn there may
// be one more.
const (
	clientColumns = `s.id, s.network, s.owner, s.client, s.listener, s.name, s.port, s.version, s.reason, s.ja4, s.first_seen, s.last_seen,
		s.login_ok, s.login_failed, s.scanner, s.noise, s.observed, s.explained, s.rejected, s.failed`
	placeColumn = 20
)

// versions and reasons are those of the ledger's labels.
var versions, reasons = byLabel(policy.Versions), byLabel(policy.LegacyReasons)

func byLabel[T fmt.Stringer](list []T) map[string]T {
	values := make(map[string]T)
	for _, v := range list {
		values[v.String()] = v
	}
	return values
}

// client makes a client of a row. A version or reason that only a newer version of this
// program knows is zero.
func (t interned) client(r row) Client {
	c := Client{
		id: r.int(0), network: r.int(1), owner: r.int(2),
		Listener: proxy.Listener(t.get(r.text(4))), Endpoint: Endpoint{t.get(r.text(5)), uint16(r.int(6))},
		Version: versions[string(r.text(7))], Reason: reasons[string(r.text(8))], JA4: t.get(r.text(9)),
		First: time.Unix(r.int(10), 0).UTC(), Last: time.Unix(r.int(11), 0).UTC(),
		Noise: r.int(15) != 0, Counts: countsOf(r, 16),
	}
	c.Addr, c.Login = addressOf(c.network, r), loginOf(r.int(12), r.int(13), c.Counts.Observed, r.int(14))
	if c.owner == 0 { // a replica of an earlier version has written it
		c.owner = ownerOf(string(r.text(3)), c.JA4)
	}
	return c
}

// interned holds texts of which many rows have the same.
type interned map[string]string

// maxInterned bounds them: a client may choose some of them.
const maxInterned = 10_000

func (t interned) get(b []byte) string {
	s, known := t[string(b)]
	if !known {
		if len(t) >= maxInterned {
			clear(t)
		}
		s = string(b)
		t[s] = s
	}
	return s
}

func (c *chunk) rows(statement string, each func(row), args ...any) {
	if c.err == nil {
		c.err = c.reader.rows(c.ctx, statement, each, append([]any{c.first, c.last}, args...)...)
	}
}

// read reads what is in a scope.
func (c *chunk) read(scope Scope, days string) {
	c.sightings(scope.Since)
	if scope.Logins {
		c.logins()
	}
	c.days(days)
}

func (c *chunk) sightings(since time.Time) {
	c.rows("SELECT "+clientColumns+" FROM sightings s WHERE id BETWEEN $1 AND $2 AND last_seen >= $3 ORDER BY id", func(r row) {
		one := c.texts.client(r)
		one.Remembered = c.store.candidates == nil
		c.clients = append(c.clients, one)
	}, since.Unix())
}

// addressOf returns the address of a row, which a number of IPv4 says.
func addressOf(network int64, r row) netip.Addr {
	if network>>32 == -1<<16 {
		return netip.AddrFrom4([4]byte{byte(network >> 24), byte(network >> 16), byte(network >> 8), byte(network)})
	}
	a, _ := netip.ParseAddr(string(r.text(3))) // as the ledger has it
	return a
}

// logins adds accounts and programs.
func (c *chunk) logins() {
	places := make(map[int64]int, len(c.clients))
	for i := range c.clients {
		places[c.clients[i].owner] = i
	}
	found := make([][]Identity, len(c.clients))
	c.rows(`SELECT owner, account, software FROM accounts WHERE owner BETWEEN $1 AND $2 ORDER BY owner, account, software`, func(r row) {
		if i, wanted := places[r.int(0)]; wanted {
			found[i] = append(found[i], Identity{Account: string(r.text(1)), Software: c.texts.get(r.text(2))})
		}
	})
	for i := range c.clients {
		c.clients[i].addLogins(found[places[c.clients[i].owner]], c.store.Table())
	}
}

// daysSince lists the days from one on that the ledger may have, as SQL does: a
// range of keys can be found for each of them.
func (s *Store) daysSince(ctx context.Context, first time.Time) (list string, err error) {
	if first.IsZero() {
		return "", nil
	}
	last, err := number(ctx, s, "reading days", `SELECT max(day) FROM days`)
	return dayList(first, last), err
}

// dayList lists days as SQL does, from one on.
func dayList(first time.Time, last int64) string {
	var days []int64
	for day := first.Unix() / secondsADay; day <= last && len(days) < maxDays; day++ {
		days = append(days, day)
	}
	return numbers(days, func(day *int64) int64 { return *day })
}

// maxDays is more than any ledger remembers.
const maxDays = 4000

// days adds the handshakes of each day.
func (c *chunk) days(list string) {
	if list == "" || len(c.clients) == 0 {
		return
	}
	type hit struct {
		client int
		Day
	}
	hits := make([]hit, 0, len(c.clients))
	counts := make([]int, len(c.clients))
	at, of := 0, int64(-1)
	c.rows(`SELECT day, sighting, observed, explained, rejected, failed FROM days WHERE day IN (`+list+`) AND sighting BETWEEN $1 AND $2
		ORDER BY day, sighting`, func(r row) {
		day, id := r.int(0), r.int(1)
		if day != of {
			at, of = 0, day
		}
		for at < len(c.clients) && c.clients[at].id < id {
			at++
		}
		if at < len(c.clients) && c.clients[at].id == id {
			hits = append(hits, hit{at, Day{day, countsOf(r, 2)}})
			counts[at]++
		}
	})
	all := make([]Day, len(hits)) // one allocation for all
	for i, n := range counts {
		c.clients[i].Days, all = all[:0:n], all[n:]
	}
	for i := range hits {
		one := &c.clients[hits[i].client]
		one.Days = append(one.Days, hits[i].Day)
	}
}

// gather puts the clients of each network side by side. Those of one hash of the
// network are so already, and most often there are few of them.
func (c *chunk) gather() {
	for list := range Runs(c.clients, func(c *Client) int64 { return c.id >> (63 - bucketBits) }) {
		if len(list) > 32 {
			slices.SortStableFunc(list, func(a, b Client) int { return cmp.Compare(a.network, b.network) })
			continue
		}
		for i := 0; i < len(list); {
			network := list[i].network
			i++
			for at := i; at < len(list); at++ {
				if list[at].network == network {
					list[i], list[at] = list[at], list[i]
					i++
				}
			}
		}
	}
}

// Runs splits a list where a key of its elements changes.
func Runs[T any, K comparable](list []T, key func(*T) K) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(list) > 0 {
			n, first := 1, key(&list[0])
			for n < len(list) && key(&list[n]) == first {
				n++
			}
			if !yield(list[:n:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// background holds how many readers of a whole ledger run. Each keeps a processor of
// Go's scheduler busy for seconds, which would have mail wait for the next one: so
// there are as many more meanwhile, and the threads of the readers get what time the
// system has left.
var background struct {
	sync.Mutex
	running int
}

// backgroundProcs is how many processors there are for readers.
const backgroundProcs = scanReaders + 1

// inBackground counts a reader; the caller calls what it returns at its end.
func inBackground() (end func()) {
	background.Lock()
	defer background.Unlock()
	if background.running++; background.running == 1 {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + backgroundProcs)
	}
	return func() {
		background.Lock()
		defer background.Unlock()
		switch background.running--; {
		case background.running > 0:
		case os.Getenv("GOMAXPROCS") != "": // which the default does not heed
			runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - backgroundProcs)
		default:
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}

// idleWorkers are goroutines with threads of low priority that wait for work. They
// stay: where a thread ends, the system signals what it has started as if the whole
// process had ended (PR_SET_PDEATHSIG).
var idleWorkers = make(chan func())

func work(f func()) {
	lowPriority()
	for {
		f()
		f = <-idleWorkers
	}
}

// Background runs f, which reads a whole ledger and goes on with what it reads, on a
// thread of low priority, and returns at its end. It panics if f does.
func Background(f func()) {
	defer inBackground()()
	var panicked any
	done := make(chan struct{})
	job := func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}
	select {
	case idleWorkers <- job:
	default:
		go work(job)
	}
	if <-done; panicked != nil {
		panic(panicked)
	}
}
