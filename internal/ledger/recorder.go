package ledger

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
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
	// identity and flushed come from Options.
	identity func(account string) string
	flushed  func()

	shards     [shardCount]shard
	queue      queue
	negotiated negotiatedCounts
	pending    atomic.Int64 // entries that hold something to be written
	dropped    atomic.Uint64
	// remembered are those of candidates, one for each floor; none where this is one. wanted:
	// the policy has such a candidate.
	remembered []*Recorder
	wanted     atomic.Bool

	// failing: the last attempt to write failed.
	failing atomic.Bool
	// whole is what had been dropped when an attempt last succeeded; full: more has been
	// since, which was said.
	whole uint64
	full  bool
	// lastWrite is when rows were written last, and lastGood when an attempt last
	// succeeded, even if there was nothing to write; in seconds since 1970.
	lastWrite, lastGood atomic.Int64
	// writer and number name a batch in the store. inDoubt is the batch whose
	// connection broke during the commit.
	writer, number int64
	inDoubt        *batch

	loaded accountsState
	// clients are for graces; listDue is when to read them again. Away: the ledger could not
	// be asked.
	clients                atomic.Pointer[clients]
	listDue                time.Time
	listing                sync.Mutex // held while they are read
	guardsAway, gracesAway bool
}

// Options configure a Recorder.
type Options struct {
	Store *Store
	Log   *slog.Logger
	Now   func() time.Time
	// Identity returns the stored form of an account's name, which is in lower
	// case; nil stores no names.
	Identity func(account string) string
	// Flushed is called after each write, on Run's goroutine; nil is not called.
	Flushed func()
}

// NewRecorder makes a recorder; Run lets it write, and Close ends it.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{store: o.Store, log: o.Log, now: o.Now, identity: o.Identity, flushed: o.Flushed, writer: rand.Int64()}
	for i := range r.shards {
		r.shards[i].entries, r.shards[i].today = make(map[entryKey]*entry), make(map[int64]*variants)
	}
	r.queue.init()
	r.negotiated.by = make(map[negotiatedKey]int64)
	r.clients.Store(new(clients))
	for _, c := range o.Store.candidates {
		of := o
		of.Store, of.Log = c, o.Log.With("candidate_floor", c.floor.String())
		r.remembered = append(r.remembered, NewRecorder(of))
	}
	r.lastGood.Store(r.now().Unix())
	r.store.writing.Lock()
	defer r.store.writing.Unlock()
	r.store.recorders = append(r.store.recorders, r)
	return r
}

// Dropped returns how many sightings, logins and names were left out because
// there were too many clients at once.
func (r *Recorder) Dropped() (n uint64) {
	for _, o := range r.remembered {
		n += o.Dropped()
	}
	return n + r.dropped.Load()
}

// stuckAfter is how long sightings may wait before they count as unwritten,
// also while an attempt to write them hangs.
const stuckAfter = 5 * FlushEvery

// Backlog is what the store does not know yet.
type Backlog struct {
	// Clients wait to be written.
	Clients int
	// Written is when rows were written last, in seconds since 1970; 0 for never.
	Written int64
	// Stuck: they cannot be written, Since then.
	Stuck bool
	Since time.Time
	// Ledger is the store's URL without a password.
	Ledger string
}

// String says what is stuck.
func (b Backlog) String() string {
	return fmt.Sprintf("%s not written since %s, to %s", text.Number(b.Clients, "client"), text.Unglued(text.Date(b.Since, nil)), b.Ledger)
}

// Backlog returns what waits to be written, also to the ledgers of candidates.
func (r *Recorder) Backlog() Backlog {
	b := Backlog{Clients: max(int(r.pending.Load()), r.queue.waiting()), Ledger: r.store.name,
		Written: r.lastWrite.Load(), Since: time.Unix(r.lastGood.Load(), 0).UTC()}
	b.Stuck = b.Clients > 0 && (r.failing.Load() || r.now().Sub(b.Since) > stuckAfter)
	for _, o := range r.remembered {
		more := o.Backlog()
		b.Clients, b.Written = b.Clients+more.Clients, max(b.Written, more.Written)
		b.Stuck, b.Since = b.Stuck || more.Stuck, text.Earlier(b.Since, more.Since)
	}
	return b
}

// Handshake records what a handshake has agreed on, and a legacy one, or one that remembered
// candidates refuse. In the steady state it does not allocate.
func (r *Recorder) Handshake(h *proxy.Handshake) {
	r.negotiated.add(h, r.now().Unix()/secondsADay)
	for o := range r.concerned(h.Conn) {
		o.record(h)
	}
}

func (r *Recorder) record(h *proxy.Handshake) {
	reason := h.Verdict.Reason
	if r.store.candidates == nil {
		reason = h.Verdict.RefusedBy(r.store.floor)
	}
	if reason == policy.NotLegacy || h.Hello == nil {
		return
	}
	t := r.now()
	now := t.Unix()
	if h.Verdict.Watched && (h.Outcome == proxy.Rejected || h.Outcome == proxy.Explained) {
		rule := cmp.Or(h.Verdict.Rule, policy.PolicyGuard)
		r.count(r.queue.addRefusal(refusal{rule, networkNumber(h.Client.Addr()), h.Verdict.Floor}, now))
	}
	k := entryKey{
		client: h.Client.Addr().WithZone(""), listener: h.Listener, ja4: h.JA4, day: int32(now / secondsADay),
		version: h.Verdict.Version, port: h.Local.Port(), reason: reason, name: hostName(h.Hello.ServerName),
	}
	s := r.shardOf(k.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		if s.admit(&k) {
			r.queue.addHello(h.JA4, h.Hello)
		} else {
			k.client, k.ja4, k.name = policy.ClientPrefix(k.client).Addr(), policy.JA4{}, ""
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
	e.mark(h, t.UnixMilli())
}

// LoginFailed does nothing: Closed says how many logins have failed.
func (r *Recorder) LoginFailed(*proxy.LoginFailed) {}

// Login records the login of a legacy client, and its account.
func (r *Recorder) Login(l *proxy.Login) {
	for r := range r.concerned(l.Conn) {
		r.count(r.queue.addLogins(r.clientKey(l.Client.Addr(), l.JA4), 1, 0))
		account := r.stored(l.Account)
		r.speaks(l.Conn, account, l.Pattern)
		r.identify(l.Conn, account, l.Software)
	}
}

// speaks records how an account's program speaks, or one of which none is known.
func (r *Recorder) speaks(c *proxy.Conn, account, pattern string) {
	if pattern != "" {
		r.count(r.queue.addPattern(accountKey{r.clientKey(c.Client.Addr(), c.JA4), account, asPattern + pattern}, r.now().Unix()))
	}
}

// Software records the name that a client has sent after its login.
func (r *Recorder) Software(s *proxy.Software) {
	for r := range r.concerned(s.Conn) {
		r.identify(s.Conn, r.stored(s.Account), s.Software)
	}
}

// Closed records that a legacy client has failed to log in, or has not said with
// which program it did.
func (r *Recorder) Closed(c *proxy.Closed) {
	for r := range r.concerned(c.Conn) {
		if c.FailedLogins > 0 {
			r.count(r.queue.addLogins(r.clientKey(c.Client.Addr(), c.JA4), 0, c.FailedLogins))
		}
		r.speaks(c.Conn, "", c.Pattern)
		if k, unnamed := r.queue.named(c.ID); unnamed {
			k.software = noID
			r.count(r.queue.addAccount(k, r.now().Unix()))
		}
	}
}

// count counts a dropped entry.
func (r *Recorder) count(kept bool) {
	if !kept {
		r.dropped.Add(1)
	}
}

// maxSoftware and maxAccount bound the names that a client sends, in bytes.
const (
	maxSoftware = 128
	maxAccount  = 254
)

// stored returns the stored form of an account, if it is known and stored at all.
func (r *Recorder) stored(account string) string {
	if account = strings.ToLower(text.Clean(account, maxAccount)); account == "" || r.identity == nil {
		return ""
	}
	return r.identity(account)
}

func (r *Recorder) identify(c *proxy.Conn, account, software string) {
	if account != "" {
		k := accountKey{r.clientKey(c.Client.Addr(), c.JA4), account, text.Clean(software, maxSoftware)}
		switch {
		case k.software != "":
			r.queue.named(c.ID)
		case c.Listener.Protocol() == proxy.ProtocolIMAP && r.queue.withoutID(k):
			k.software = noID
		case c.Listener.Protocol() == proxy.ProtocolIMAP:
			r.queue.begun(c.ID, k)
		}
		r.count(r.queue.addAccount(k, r.now().Unix()))
	}
}

// Identify returns what is known of a legacy client, also from when a candidate alone
// refused it. It does not block.
func (r *Recorder) Identify(h *proxy.Handshake) Known {
	k := clientKey{h.Client.Addr().WithZone(""), h.JA4}
	best := r.queue.identify(k, string(h.Listener), h.Pattern, r.now().Unix()-knownFor, r.store.Table())
	for _, o := range r.remembered {
		n := o.Identify(h)
		if best.Accounts == 0 && (n.Accounts > 0 || best.SpeaksLike == "") || best.Inferred && n.Accounts > 0 && !n.Inferred {
			best = n
		}
	}
	return best
}

// erase removes what has not been written yet, and known accounts.
func (r *Recorder) erase(account func(string) bool, client netip.Addr) {
	r.queue.erase(account, client)
	if client.IsValid() {
		r.pending.Add(-r.shardOf(client).drop(func(k entryKey, _ *entry) bool { return k.client == client }))
	}
}

// HashAccount hides the part before the @: finding it takes the key and trying
// names. The domain stays.
func HashAccount(key []byte, account string) string {
	account = strings.ToLower(account)
	domain := ""
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		domain = account[at:]
	}
	// The hash covers the domain: the same name elsewhere is another account.
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(account))
	const bytes = 15 // enough that no two accounts meet
	return "h:" + strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil)[:bytes])) + domain
}
