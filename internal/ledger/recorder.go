package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// A Recorder adds up what it observes and writes it to a Store. It implements
// [proxy.Observer]. Safe for concurrent use.
type Recorder struct {
	store *Store
	log   *slog.Logger
	now   func() time.Time
	// identity and flushed are those of Options.
	identity func(account string) string
	flushed  func()

	shards  [shardCount]shard
	queue   queue
	pending atomic.Int64 // entries that hold something to be written
	dropped atomic.Uint64

	// writing is held from the moment when what is to be written is copied
	// until it is written or not, and while something is erased: what was
	// erased does not come back with a batch that was under way.
	writing sync.Mutex
	// failing: the last attempt to write failed.
	failing bool
	// writer and number name a batch in the store. inDoubt is the one whose end
	// is not known, because the connection broke while it was committed.
	writer, number int64
	inDoubt        *batch

	loaded accountsState
}

// Options are what a Recorder is made with.
type Options struct {
	Store *Store
	Log   *slog.Logger
	Now   func() time.Time // nil means the clock
	// Identity is what is kept of an account's name, which comes in lower case;
	// nil keeps no names.
	Identity func(account string) string
	// Flushed is called after each write, on Run's goroutine; nil is not called.
	Flushed func()
}

// NewRecorder makes a recorder; Run lets it write, and Close ends it.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{store: o.Store, log: o.Log, now: o.Now, identity: o.Identity, flushed: o.Flushed, writer: rand.Int64()}
	if r.now == nil {
		r.now = time.Now
	}
	for i := range r.shards {
		r.shards[i].entries, r.shards[i].today = make(map[entryKey]*entry), make(map[int64]*variants)
	}
	r.queue.init()
	r.store.attach(r)
	return r
}

// Dropped is how many sightings, logins and names were left out because there
// were too many clients at once.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Handshake remembers a legacy handshake. In the steady state it allocates
// nothing.
func (r *Recorder) Handshake(h *proxy.Handshake) {
	if !h.Verdict.Legacy() || h.Hello == nil {
		return
	}
	now := r.now().Unix()
	k := entryKey{
		client: h.Client.Addr().WithZone(""), listener: h.Listener, ja4: h.JA4, day: int32(now / secondsADay),
		version: h.Verdict.Version, port: h.Local.Port(), reason: h.Verdict.Reason, name: hostName(h.Hello.ServerName),
	}
	s := r.shardOf(k.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		if s.admit(&k) {
			r.queue.addHello(h.JA4, h.Hello)
		} else {
			a := aggregateKey(k.client)
			k.client, k.ja4, k.name = a.client, a.ja4, ""
			e = s.entries[k]
		}
	}
	switch {
	case e == nil && r.pending.Load() >= maxPending:
		r.dropped.Add(1)
		return
	case e == nil:
		k.name = strings.Clone(k.name) // it may be a part of something larger
		e = &entry{id: k.row()}
		s.entries[k] = e
		fallthrough
	case e.counts == Counts{}:
		e.first = now
		r.pending.Add(1)
	}
	e.last = now
	*e.counts.of(h.Outcome)++
}

// Login remembers that a legacy client has logged in, and as whom.
func (r *Recorder) Login(l *proxy.Login) {
	if l.Legacy {
		r.count(r.queue.addLogins(r.clientKey(l.Client.Addr(), l.JA4), 1, 0))
		r.identify(l.Conn, l.Account, l.Software)
	}
}

// Software remembers what a client has said of itself after its login.
func (r *Recorder) Software(s *proxy.Software) {
	if s.Legacy {
		r.identify(s.Conn, s.Account, s.Software)
	}
}

// Closed remembers that a legacy client has failed to log in.
func (r *Recorder) Closed(c *proxy.Closed) {
	if c.Legacy && c.FailedLogins > 0 {
		r.count(r.queue.addLogins(r.clientKey(c.Client.Addr(), c.JA4), 0, c.FailedLogins))
	}
}

// count counts what found no room.
func (r *Recorder) count(kept bool) {
	if !kept {
		r.dropped.Add(1)
	}
}

// maxSoftware and maxAccount bound what a client says of itself, in bytes.
const (
	maxSoftware = 128
	maxAccount  = 254
)

func (r *Recorder) identify(c *proxy.Conn, account, software string) {
	if r.identity == nil {
		return
	}
	if account = strings.ToLower(text.Clean(account, maxAccount)); account != "" {
		k := accountKey{r.clientKey(c.Client.Addr(), c.JA4), r.identity(account), text.Clean(software, maxSoftware)}
		r.count(r.queue.addAccount(k, r.now().Unix()))
	}
}

// Identify returns how many accounts have logged in from the address with the
// fingerprint within the last 30 days. Where that is one, it returns its name,
// and the software it came with if that was always the same.
func (r *Recorder) Identify(client netip.Addr, ja4 policy.JA4) (accounts int, account, software string) {
	return r.queue.only(clientKey{client.WithZone(""), ja4}, r.now().Unix()-knownFor)
}

// erase drops what has not been written yet, and what is known.
func (r *Recorder) erase(account func(string) bool, client netip.Addr) {
	r.queue.erase(account, client)
	if client.IsValid() {
		r.pending.Add(-r.shardOf(client).drop(func(k entryKey, _ *entry) bool { return k.client == client }))
	}
}

// HashAccount hides the part before the @, so that it can only be found by whoever
// has the key and tries names; the domain stays.
func HashAccount(key []byte, account string) string {
	account = strings.ToLower(account)
	domain := ""
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		domain = account[at:]
	}
	// The domain is hashed along: the same name elsewhere is somebody else.
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(account))
	const bytes = 15 // enough that no two accounts meet
	return "h:" + strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil)[:bytes])) + domain
}
