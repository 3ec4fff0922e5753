package admin

import (
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/policy"
)

// access decides who may see the page and the API. A handler behind it is
// asked where the request came under a name of this host, and, off loopback,
// with the token; the right token alone will do anywhere.
type access struct {
	// token is nil where none is configured; then nothing in a request is
	// taken for one, and off loopback nobody may.
	token func() *Token
	// loopback says that the port is reached from this host alone.
	loopback bool
	// host is the name in ADMIN_LISTEN.
	host    string
	guesses guesses
	now     func() time.Time
	log     *slog.Logger
}

func newAccess(o Options) *access {
	a := &access{
		token: o.Token, loopback: config.OnLoopback(o.Listen), host: hostName(o.Listen),
		guesses: guesses{wrong: make(map[netip.Prefix][]time.Time)}, now: o.Now, log: o.Log,
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	return a
}

// off tells that there is no way in at all.
func (a *access) off() bool { return a.token == nil && !a.loopback }

// refusals are the words to a status.
var refusals = map[int]string{
	http.StatusUnauthorized:       "the token of POSTERN_ADMIN_TOKEN_FILE is needed\n",
	http.StatusMisdirectedRequest: "not a name of this host; ask by its address, or give the token\n",
	http.StatusTooManyRequests:    "too many wrong tokens from your address\n",
}

// protect puts the decision before a handler.
func (a *access) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, wait := a.decide(r)
		switch status {
		case http.StatusOK:
			next.ServeHTTP(w, r)
			return
		case http.StatusUnauthorized:
			w.Header()["Www-Authenticate"] = []string{`Bearer realm="postern"`, `Basic realm="postern", charset="UTF-8"`}
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		}
		writeText(w, status, refusals[status])
	})
}

// decide returns 200 for a request that may pass, else what it is answered
// with; with 429 also how long its address has to wait. It goes by the
// connection and by Host: no forwarding header is looked at.
func (a *access) decide(r *http.Request) (status int, wait time.Duration) {
	var token *Token
	given := ""
	if a.token != nil {
		token, given = a.token(), tokenIn(r)
	}
	if given == "" {
		// Without the token only the name of this host keeps a web page out
		// whose own name has been made to point here (DNS rebinding).
		if !ownHost(r.Host) && !a.named(r.Host) {
			return http.StatusMisdirectedRequest, 0
		}
		if a.loopback {
			return http.StatusOK, 0
		}
	}
	right := token.is(given)
	peer := peerAddr(r)
	wait, last := a.guesses.try(policy.ClientPrefix(peer), given != "" && !right, a.now())
	if last {
		a.log.Warn("too many wrong admin tokens, the address is refused for a minute", "client", peer)
	}
	switch {
	case wait > 0:
		return http.StatusTooManyRequests, wait
	case !right:
		return http.StatusUnauthorized, 0
	}
	return http.StatusOK, 0
}

// named tells the name in ADMIN_LISTEN.
func (a *access) named(host string) bool { return a.host != "" && hostName(host) == a.host }

// ownHost tells localhost and IP addresses, with or without a port: what no
// web page has for its name that does not come from there.
func ownHost(host string) bool {
	name := hostName(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

// hostName takes port, brackets and the final dot off a Host header (RFC 9110,
// Section 7.2), and brings it into lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// peerAddr is who is at the other end of the connection.
func peerAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap()
}

const (
	// maxWrong tokens may come from one client in guessMemory; then it has to
	// wait until the first of them is that old, whatever it gives.
	maxWrong    = 10
	guessMemory = time.Minute
	// maxClients bounds who is remembered. Those who find no room are counted
	// together, as one: with many addresses there is no way around.
	maxClients = 10_000
	// sweepEvery bounds the work of looking for room.
	sweepEvery = time.Second
)

// guesses remembers wrong tokens.
type guesses struct {
	mu sync.Mutex
	// wrong has the times of the last maxWrong ones of a client, oldest first;
	// the zero prefix is all who found no room.
	wrong map[netip.Prefix][]time.Time
	swept time.Time
}

// try returns how long a client has to wait before its token counts, and where
// it need not, notes a wrong one; last says that this was the last one before
// it has to wait. Both are one step, so that no number of requests at once gets
// more tries.
func (g *guesses) try(client netip.Prefix, wrong bool, now time.Time) (wait time.Duration, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	client = g.room(client, now)
	times := g.wrong[client]
	if len(times) == maxWrong {
		if wait = guessMemory - now.Sub(times[0]); wait > 0 {
			return wait, false
		}
	}
	if !wrong {
		return 0, false
	}
	times = append(times[max(0, len(times)+1-maxWrong):], now)
	g.wrong[client] = times
	return 0, len(times) == maxWrong && now.Sub(times[0]) < guessMemory
}

// room returns the client where it is remembered or can be, else the address
// of those who cannot.
func (g *guesses) room(client netip.Prefix, now time.Time) netip.Prefix {
	if _, known := g.wrong[client]; known || len(g.wrong) < maxClients {
		return client
	}
	if now.Sub(g.swept) >= sweepEvery {
		g.swept = now
		maps.DeleteFunc(g.wrong, func(_ netip.Prefix, times []time.Time) bool {
			return now.Sub(times[len(times)-1]) >= guessMemory
		})
	}
	if len(g.wrong) < maxClients {
		return client
	}
	return netip.Prefix{}
}
