package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/policy"
	"postern/proxy"
)

// Negotiated is what handshakes have agreed on, and how many have.
type Negotiated struct {
	Listener    proxy.Listener    `json:"listener"`
	Version     string            `json:"version"`      // as [policy.Version]
	CipherSuite string            `json:"cipher_suite"` // by its IANA name
	KeyExchange proxy.KeyExchange `json:"key_exchange"`
	KeyType     proxy.KeyType     `json:"key_type"`
	Handshakes  int64             `json:"handshakes"`
}

// negotiatedEvery is the time between two writes of what was negotiated, which every
// client adds to: a ledger without legacy clients is to rest.
const negotiatedEvery = time.Minute

// negotiatedKey is what a handshake has agreed on, on a day; it counts none.
type negotiatedKey struct {
	day int64
	Negotiated
}

// negotiatedCounts are handshakes that wait to be written, from due on, in seconds since
// 1970.
type negotiatedCounts struct {
	mu  sync.Mutex
	by  map[negotiatedKey]int64
	due atomic.Int64
}

func (n *negotiatedCounts) add(h *proxy.Handshake, day int64) {
	if h.Version == policy.NoVersion {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.by[negotiatedKey{day, Negotiated{h.Listener, h.Version.String(), policy.CipherSuiteName(h.CipherSuite), h.KeyExchange, h.Key, 0}}]++
}

func (n *negotiatedCounts) gather(b *batch, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Unix() >= n.due.Load() {
		b.negotiated = maps.Clone(n.by)
	}
}

func (n *negotiatedCounts) acknowledge(b *batch, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b.negotiated != nil {
		n.due.Store(now.Add(negotiatedEvery).Unix())
	}
	for k, count := range b.negotiated {
		if n.by[k] -= count; n.by[k] == 0 {
			delete(n.by, k)
		}
	}
}

func (w *writer) negotiated(counts map[negotiatedKey]int64) {
	insert(w, "negotiated", []string{"day", "listener", "version", "cipher_suite", "key_exchange", "key_type", "handshakes"}, nil,
		slices.Collect(maps.Keys(counts)),
		`ON CONFLICT (day, listener, version, cipher_suite, key_exchange, key_type)
			DO UPDATE SET handshakes = negotiated.handshakes + excluded.handshakes`,
		func(k negotiatedKey, to []any) []any {
			return append(to, k.day, string(k.Listener), k.Version, k.CipherSuite, string(k.KeyExchange), string(k.KeyType), counts[k])
		})
}

// Negotiated returns what handshakes have agreed on since the day (UTC) of a time, the
// most frequent first.
func (s *Store) Negotiated(ctx context.Context, since time.Time) ([]Negotiated, error) {
	list, err := query(ctx, s.db, "reading what was negotiated", fmt.Sprintf(`SELECT listener, version, cipher_suite, key_exchange, key_type, sum(handshakes)
		FROM negotiated WHERE day >= %d GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5`, since.Unix()/secondsADay), nil, func(r row) Negotiated {
		text := func(column int) string { return string(r.text(column)) }
		return Negotiated{proxy.Listener(text(0)), text(1), text(2), proxy.KeyExchange(text(3)), proxy.KeyType(text(4)), r.int(5)}
	})
	if noTable(err) { // an earlier version has made the ledger
		return nil, nil
	}
	return list, err
}
