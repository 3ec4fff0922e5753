package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/policy"
)

// access decides which requests reach the page and the API: those under a name
// of this host, off loopback with the token besides; the right token alone is
// enough anywhere.
type access struct {
	// token is nil where none is configured; then nothing in a request is
	// taken for one, and off loopback no request passes.
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

// off reports that no request can pass.
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

// named reports whether a Host header has the name in ADMIN_LISTEN.
func (a *access) named(host string) bool { return a.host != "" && hostName(host) == a.host }

// ownHost reports localhost and IP addresses, with or without a port: no web
// page from elsewhere has such a name.
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

// peerAddr is the address at the other end of the connection.
func peerAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap()
}

// onlyLocal answers peers on loopback alone, and only under a name of this
// host: a web page whose name has been made to point to 127.0.0.1 must not
// read along in the operator's browser.
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

// Token is what page and API ask for. It holds a sum alone, so that nothing
// that prints it can show what it was.
type Token struct{ sum [sha256.Size]byte }

// ReadToken reads the file that ADMIN_TOKEN_FILE names: one token, and one
// line ending behind it or none. Without a name there is no token, and no
// error. The error is one line that names variable and file, and never holds
// any of the token.
func ReadToken(name string) (*Token, error) {
	if name == "" {
		return nil, nil
	}
	text, err := config.ReadSecret("ADMIN_TOKEN_FILE", name, "token", oneWord)
	if err != nil {
		return nil, err
	}
	return &Token{sha256.Sum256(text)}, nil
}

// oneWord: a token goes into an HTTP header.
func oneWord(text []byte) error {
	for _, b := range text {
		if b <= ' ' || b > '~' {
			return errors.New("the token is not one line of printable ASCII without blanks")
		}
	}
	return nil
}

// is compares in a time that depends neither on the token nor on its length.
func (t *Token) is(given string) bool {
	if t == nil {
		return false
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}

// tokenIn returns what a request gives as the token: that of a Bearer scheme
// (RFC 6750, Section 2.1), or the password of a Basic one, whoever the user.
// Anything else is no token, and no wrong one either.
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
