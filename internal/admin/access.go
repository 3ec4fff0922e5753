package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/text"
	"postern/policy"
)

// access decides which requests reach the page and the API. The right token is
// always enough. On loopback a request under a name of this host needs none.
type access struct {
	Options
	// loopback: the port is reached from this host alone.
	loopback bool
	guesses  guesses
}

// refusals are the texts for each status.
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

// decide returns 200 for a request that may pass, else the status to answer; for
// 429 also how long its address has to wait. It decides by the connection and by
// Host, and ignores forwarding headers.
func (a *access) decide(r *http.Request) (status int, wait time.Duration) {
	token := a.Token()
	given := text.Either(token != nil, tokenIn(r), "")
	if given == "" {
		// Without the token only this check keeps out a web page whose own
		// name points here (DNS rebinding).
		if name := hostName(r.Host); !ownHost(r.Host) && (name == "" || name != hostName(a.Listen)) {
			return http.StatusMisdirectedRequest, 0
		}
		if a.loopback {
			return http.StatusOK, 0
		}
	}
	right := token.is(given)
	peer := peerAddr(r)
	wait, last := a.guesses.try(policy.ClientPrefix(peer), given != "" && !right, a.Now())
	if last {
		a.Log.Warn("too many wrong admin tokens, the address is refused for a minute", "client", peer)
	}
	switch {
	case wait > 0:
		return http.StatusTooManyRequests, wait
	case !right:
		return http.StatusUnauthorized, 0
	}
	return http.StatusOK, 0
}

// ownHost reports localhost and IP addresses, with or without a port: no web
// page from elsewhere has such a name.
func ownHost(host string) bool {
	name := hostName(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

// hostName removes port, brackets and the final dot from a Host header (RFC 9110,
// Section 7.2), and lowers its case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// peerAddr returns the address of the connection's peer.
func peerAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap()
}

// onlyLocal answers only peers on loopback, and only under a name of this host:
// a web page whose name points to 127.0.0.1 must not read the answers in the
// operator's browser.
func onlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !peerAddr(r).IsLoopback(): // no forwarding header makes a peer local
			writeText(w, http.StatusForbidden, "only for loopback\n")
		case !ownHost(r.Host):
			writeText(w, http.StatusMisdirectedRequest, "not a name of this host\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Token guards the page and the API. It holds only a hash, so that printing it
// never shows the token.
type Token struct{ sum [sha256.Size]byte }

// ReadToken reads the file of ADMIN_TOKEN_FILE: one token, and at most one line
// ending. The error is one line that names variable and file, and never holds any
// of the token.
func ReadToken(name string) (*Token, error) {
	text, err := config.ReadSecret("ADMIN_TOKEN_FILE", name, "token", func(text []byte) error {
		if bytes.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) { // it goes into an HTTP header
			return errors.New("the token is not one line of printable ASCII without blanks")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Token{sha256.Sum256(text)}, nil
}

// is compares in constant time, whatever the token and its length.
func (t *Token) is(given string) bool {
	if t == nil {
		return false
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}

// tokenIn returns the token of a request: a Bearer token (RFC 6750, Section
// 2.1), or the password of Basic authentication with any user name. Other
// schemes count neither as a token nor as a wrong one.
func tokenIn(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, Section 11.1
		return ""
	}
	return strings.Trim(given, " ")
}

const (
	// A client may send maxWrong wrong tokens in guessMemory. Then it has to
	// wait until the first of them is that old, even with the right token.
	maxWrong    = 10
	guessMemory = time.Minute
	// maxClients bounds the remembered clients. All others count as one client,
	// so that many addresses are no way around the limit.
	maxClients = 10_000
)

// guesses remembers wrong tokens.
type guesses struct {
	mu sync.Mutex
	// recent and older have the times of wrong tokens, since a time and from
	// guessMemory before it. The zero prefix stands for all clients over maxClients.
	recent, older map[netip.Prefix][]time.Time
	since         time.Time
}

// try returns how long a client has to wait before its token counts. If it need
// not wait, try notes a wrong token; last reports that the next one has to wait.
// Both are one step, so that concurrent requests do not get more tries.
func (g *guesses) try(client netip.Prefix, wrong bool, now time.Time) (wait time.Duration, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.since) >= guessMemory {
		g.older, g.recent, g.since = g.recent, make(map[netip.Prefix][]time.Time), now
	}
	if g.recent[client] == nil && len(g.recent) >= maxClients {
		client = netip.Prefix{}
	}
	times := slices.Concat(g.older[client], g.recent[client])
	times = times[max(0, len(times)-maxWrong):]
	if len(times) == maxWrong {
		if wait = guessMemory - now.Sub(times[0]); wait > 0 {
			return wait, false
		}
	}
	if !wrong {
		return 0, false
	}
	g.recent[client] = append(g.recent[client], now)
	tenth := len(times) - (maxWrong - 1) // with this one
	return 0, tenth >= 0 && now.Sub(times[tenth]) < guessMemory
}
