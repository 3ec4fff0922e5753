package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/policy"
	"postern/proxy"
)

const (
	password = "correct-horse:battery"
	wrong    = "incorrect-horse-battery"
)

func bearer(token string) string { return "Bearer " + token }

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

// port is an admin port with an API, and a clock of its own.
type port struct {
	*Server
	now   time.Time
	token atomic.Pointer[Token]
	log   bytes.Buffer
}

// newPort listens on an address in the test's mind only; without a password it
// has no token.
func newPort(t *testing.T, listen, password string) *port {
	t.Helper()
	p := &port{now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	o := Options{
		Metrics: metrics, Readiness: readinessOf(proxy.ProtocolIMAP), Listen: listen, Now: func() time.Time { return p.now },
		Log: slog.New(slog.NewTextHandler(&p.log, nil)), Token: p.token.Load,
	}
	o.API = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "api %s", r.URL.Path) })
	o.Page = o.API
	if password != "" {
		p.setToken(t, password)
	}
	p.Server = New(o)
	return p
}

func (p *port) setToken(t *testing.T, password string) {
	t.Helper()
	token, err := ReadToken(tokenFile(t, password))
	if err != nil {
		t.Fatal(err)
	}
	p.token.Store(token)
}

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// question is a request; what is left out is that of a local curl.
type question struct{ method, path, peer, host, authorization string }

func (p *port) ask(q question) *httptest.ResponseRecorder {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&q.method, "GET")
	def(&q.path, "/api/v1/policy")
	def(&q.peer, "127.0.0.1:4711")
	def(&q.host, "127.0.0.1:9993")
	r := httptest.NewRequest(q.method, q.path, nil)
	r.RemoteAddr, r.Host = q.peer, strings.TrimPrefix(q.host, "none")
	if q.authorization != "" {
		r.Header.Set("Authorization", q.authorization)
	}
	w := httptest.NewRecorder()
	p.http.Handler.ServeHTTP(w, r)
	return w
}

func (p *port) expect(t *testing.T, what string, q question, status int) *httptest.ResponseRecorder {
	t.Helper()
	w := p.ask(q)
	if w.Code != status {
		t.Errorf("%s: status %d, want %d", what, w.Code, status)
	}
	if shown := strings.HasPrefix(w.Body.String(), "api "); shown != (status == 200) {
		t.Errorf("%s: shown %v", what, shown)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: Cache-Control %q", what, got)
	}
	for name := range w.Header() {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s: %s is set", what, name)
		}
	}
	var challenge []string
	if status == 401 {
		challenge = []string{`Bearer realm="postern"`, `Basic realm="postern", charset="UTF-8"`}
	}
	if got := w.Header().Values("WWW-Authenticate"); !slices.Equal(got, challenge) {
		t.Errorf("%s: WWW-Authenticate %q", what, got)
	}
	return w
}

// DNS rebinding: the browser of somebody on this host comes from loopback, but
// under the name of the page that it shows.
func TestTheAPIAnswersUnderNamesOfThisHostAlone(t *testing.T) {
	for _, tt := range []struct {
		host string
		good bool
	}{
		{"localhost", true}, {"localhost:9993", true}, {"LocalHost.:80", true}, {"localhost.", true},
		{"127.0.0.1", true}, {"127.0.0.1:9993", true}, {"192.0.2.7:1", true}, {"127.0.0.1.", true},
		{"[::1]", true}, {"[::1]:9993", true}, {"[2001:DB8::1]:9993", true}, {"[fe80::1%eth0]:9993", true}, {"[fe80::1%25eth0]", true},
		{"[::ffff:127.0.0.1]:9993", true},

		{"none", false}, {":9993", false}, {".", false}, {"evil.example", false}, {"evil.example:9993", false},
		{"localhost.evil.example", false}, {"evil.localhost", false}, {"localhost..", false}, {"127.0.0.1.evil.example", false},
		{"127.1", false}, {"2130706433", false}, {"0x7f.0.0.1", false}, {"evil.example:127.0.0.1", false}, {"[evil.example]:9993", false},
		{"localhost@evil.example", false}, {"evil.example, localhost", false}, {"xn--localhost", false},
	} {
		for _, listen := range []string{"127.0.0.1:9993", "localhost:9993", "[::1]:9993"} {
			want := 421
			if tt.good {
				want = 200
			}
			newPort(t, listen, "").expect(t, listen+" asked as "+tt.host, question{host: tt.host}, want)
			p := newPort(t, listen, password)
			p.expect(t, listen+" with a token set, asked as "+tt.host, question{host: tt.host}, want)
			p.expect(t, tt.host+" and the token", question{host: tt.host, authorization: bearer(password)}, 200)
		}
	}
}

func TestOffLoopbackTheTokenIsNeeded(t *testing.T) {
	for _, listen := range []string{
		":9993", "0.0.0.0:9993", "[::]:9993", "192.0.2.1:9993", "[2001:db8::1]:9993", "mail.example.org:9993", "localhost.example.org:9993",
		"me.localhost:9993", "[::ffff:0.0.0.0]:9993", "",
	} {
		p := newPort(t, listen, password)
		for _, host := range []string{"127.0.0.1:9993", "localhost", "mail.example.org", "none"} {
			want := 401
			if host == "none" || host == "mail.example.org" && listen != "mail.example.org:9993" {
				want = 421
			}
			p.expect(t, listen+" without the token as "+host, question{host: host}, want)
			p.expect(t, listen+" with the token as "+host, question{host: host, authorization: bearer(password)}, 200)
		}
		p.expect(t, listen+" with a wrong one", question{authorization: bearer(wrong)}, 401)

		off := newPort(t, listen, "")
		for _, q := range []question{
			{}, {host: "evil.example"}, {authorization: bearer(password)}, {method: "POST"}, {method: "OPTIONS"}, {path: "/api/v1/"}, {path: "/api/v1"},
		} {
			off.expect(t, fmt.Sprintf("%s without a token set: %v", listen, q), q, 404)
		}
	}
	for _, listen := range []string{"127.0.0.1:9993", "127.1.2.3:9993", "[::1]:9993", "[::ffff:127.0.0.1]:9993", "localhost:9993", "localhost.:9993", "LOCALHOST:9993"} {
		newPort(t, listen, password).expect(t, listen, question{}, 200)
		newPort(t, listen, "").expect(t, listen, question{}, 200)
	}
}

func TestTheNameInADMIN_LISTENIsAName(t *testing.T) {
	p := newPort(t, "Mail.example.org.:9993", password)
	for _, host := range []string{"mail.example.org", "MAIL.example.org:9993", "mail.example.org.:80"} {
		p.expect(t, host, question{host: host}, 401)
	}
	for _, host := range []string{"example.org", "mail.example.org.evil.example", "none", ":9993"} {
		p.expect(t, host, question{host: host}, 421)
	}
}

func TestFormsOfTheToken(t *testing.T) {
	for _, tt := range []struct {
		authorization string
		status        int
	}{
		{bearer(password), 200}, {"bearer " + password, 200}, {"BEARER   " + password + " ", 200},
		{basic("", password), 200}, {basic("anna", password), 200}, {"bAsIc " + strings.TrimPrefix(basic("x", password), "Basic "), 200},
		{bearer(wrong), 401}, {bearer(password + "x"), 401}, {bearer(password[1:]), 401}, {bearer(strings.ToUpper(password)), 401},
		{bearer(password + "\n"), 401}, {basic("anna", wrong), 401}, {basic(password, "x"), 401}, {basic("anna", password+" "), 401},

		// No token at all, so nothing that counts as a wrong one.
		{"", 0}, {"Bearer", 0}, {"Bearer ", 0}, {"Basic", 0}, {"Basic !", 0}, {basic("anna", ""), 0}, {"Digest username=" + password, 0},
		{password, 0}, {"Bearer\t" + password, 0}, {"Token " + password, 0},
	} {
		remote, local := newPort(t, ":9993", password), newPort(t, "127.0.0.1:9993", password)
		if tt.status != 0 {
			remote.expect(t, tt.authorization, question{authorization: tt.authorization}, tt.status)
			local.expect(t, tt.authorization+" on loopback", question{authorization: tt.authorization}, tt.status)
			local.expect(t, tt.authorization+" under another name", question{host: "evil.example", authorization: tt.authorization}, tt.status)
			continue
		}
		for range 2 * maxWrong {
			remote.expect(t, tt.authorization, question{authorization: tt.authorization}, 401)
		}
		local.expect(t, tt.authorization+" on loopback", question{authorization: tt.authorization}, 200)
		local.expect(t, tt.authorization+" under another name", question{host: "evil.example", authorization: tt.authorization}, 421)
		remote.expect(t, "after "+tt.authorization, question{authorization: bearer(password)}, 200)
	}
}

// A proxy on this host may pass on what was meant for itself.
func TestWithoutATokenSetNoneIsWrong(t *testing.T) {
	p := newPort(t, "127.0.0.1:9993", "")
	for range 2 * maxWrong {
		p.expect(t, "good name", question{authorization: bearer(wrong)}, 200)
		p.expect(t, "other name", question{authorization: bearer(wrong), host: "evil.example"}, 421)
	}
}

func TestTenWrongTokensAMinuteAndNoMore(t *testing.T) {
	p := newPort(t, ":9993", password)
	guess, right := question{authorization: bearer(wrong)}, question{authorization: bearer(password)}
	refused := func(what string, q question, seconds string) {
		t.Helper()
		if got := p.expect(t, what, q, 429).Header().Get("Retry-After"); got != seconds {
			t.Errorf("%s: Retry-After %q, want %s", what, got, seconds)
		}
	}
	for i := range maxWrong {
		p.expect(t, fmt.Sprint("guess ", i), guess, 401)
		p.expect(t, fmt.Sprint("right one after guess ", i), right, map[bool]int{false: 200, true: 429}[i == maxWrong-1])
		p.now = p.now.Add(2 * time.Second)
	}
	refused("an eleventh guess", guess, "40")
	refused("the right token", right, "40")
	refused("no token", question{}, "40")
	p.now = p.now.Add(39*time.Second + 500*time.Millisecond)
	refused("the right token at the end", right, "1")
	for _, path := range []string{"/metrics", "/healthz"} {
		if w := p.ask(question{path: path}); w.Code != 200 {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
	p.expect(t, "the right token from elsewhere", question{peer: "192.0.2.1:1", authorization: bearer(password)}, 200)

	p.now = p.now.Add(500 * time.Millisecond) // a minute after the first
	p.expect(t, "the right token", right, 200)
	p.expect(t, "one guess more", guess, 401)
	refused("and another", guess, "2")
	p.now = p.now.Add(time.Minute)
	for i := range maxWrong {
		p.expect(t, fmt.Sprint("guess of another minute ", i), guess, 401)
	}
	refused("and then", guess, "60")

	log := p.log.String()
	if n := strings.Count(log, "too many wrong admin tokens"); n != 3 || strings.Count(log, "client=127.0.0.1") != n || strings.Count(log, "\n") != n {
		t.Errorf("the log:\n%s", log)
	}
	if strings.Contains(log, password) || strings.Contains(log, wrong) {
		t.Errorf("a token in the log:\n%s", log)
	}
}

func TestOnLoopbackGuessesHinderOnlyThoseWithAToken(t *testing.T) {
	p := newPort(t, "127.0.0.1:9993", password)
	for range maxWrong {
		p.expect(t, "a guess", question{authorization: bearer(wrong)}, 401)
	}
	p.expect(t, "the right token", question{authorization: bearer(password)}, 429)
	p.expect(t, "none, where none is needed", question{}, 200)
	p.expect(t, "none, under another name", question{host: "evil.example"}, 421)
}

func TestGuessesAreCountedByConnection(t *testing.T) {
	for _, tt := range []struct {
		first, second string
		same          bool
	}{
		{"192.0.2.7:1", "192.0.2.7:2", true}, {"192.0.2.7:1", "[::ffff:192.0.2.7]:1", true}, {"192.0.2.7:1", "192.0.2.8:1", false},
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::2]:9", true}, {"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2]:1", true}, {"somewhere", "elsewhere", true},
	} {
		p := newPort(t, ":9993", password)
		for i := range maxWrong {
			r := httptest.NewRequest("GET", "/api/v1/policy", nil)
			r.RemoteAddr, r.Host = tt.first, "localhost"
			r.Header.Set("Authorization", bearer(wrong))
			for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP"} {
				r.Header.Set(name, fmt.Sprintf("127.0.0.%d", i+1))
			}
			r.Header.Set("Forwarded", fmt.Sprintf("for=127.0.0.%d;host=localhost", i+1))
			w := httptest.NewRecorder()
			p.http.Handler.ServeHTTP(w, r)
			if w.Code != 401 {
				t.Errorf("guess %d from %s: status %d", i, tt.first, w.Code)
			}
		}
		want := 200
		if tt.same {
			want = 429
		}
		p.expect(t, tt.second+" after "+tt.first, question{peer: tt.second, authorization: bearer(password)}, want)
	}
}

func TestNoHeaderMakesARequestLocal(t *testing.T) {
	remote, local := newPort(t, ":9993", password), newPort(t, "127.0.0.1:9993", "")
	for _, header := range []string{
		"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost", "Forwarded: for=127.0.0.1;host=localhost", "X-Real-IP: 127.0.0.1",
		"X-Original-Host: localhost", "X-Host: localhost", "Origin: http://localhost:9993", "Referer: http://localhost:9993/",
		"Cookie: token=" + password, "X-Auth-Token: " + password, "Proxy-Authorization: Bearer " + password,
	} {
		name, value, _ := strings.Cut(header, ": ")
		for p, want := range map[*port]int{remote: 401, local: 421} {
			r := httptest.NewRequest("GET", "/api/v1/policy?token="+password+"&access_token="+password, nil)
			r.Host = map[bool]string{true: "evil.example", false: "192.0.2.1"}[p == local]
			r.Header.Set(name, value)
			w := httptest.NewRecorder()
			p.http.Handler.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s: status %d, want %d", header, w.Code, want)
			}
		}
	}
}

func TestTheAPIIsReadOnly(t *testing.T) {
	p := newPort(t, "127.0.0.1:9993", password)
	if w := p.expect(t, "GET", question{path: "/api/v1/report?format=csv"}, 200); w.Body.String() != "api /api/v1/report" {
		t.Errorf("body %q", w.Body)
	}
	p.expect(t, "HEAD", question{method: "HEAD"}, 200)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
		if w := p.expect(t, method, question{method: method}, 405); w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow %q", method, w.Header().Get("Allow"))
		}
		p.expect(t, method+" under another name", question{method: method, host: "evil.example"}, 421)
	}
}

func TestMetricsAndHealthNeedNeitherTokenNorName(t *testing.T) {
	for _, listen := range []string{":9993", "127.0.0.1:9993"} {
		for _, token := range []string{"", password} {
			p := newPort(t, listen, token)
			for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 503} {
				for range 2 * maxWrong {
					if w := p.ask(question{path: path, host: "evil.example", authorization: bearer(wrong)}); w.Code != want {
						t.Fatalf("%s: status %d, want %d", path, w.Code, want)
					}
				}
			}
			if token != "" {
				p.expect(t, "the token after that", question{authorization: bearer(password)}, 200)
			}
		}
	}
}

func TestANewTokenTakesTheOldOnesPlace(t *testing.T) {
	const fresh = "0123456789abcdef"
	p := newPort(t, ":9993", password)
	p.expect(t, "old", question{authorization: bearer(password)}, 200)
	p.setToken(t, fresh)
	p.expect(t, "old", question{authorization: bearer(password)}, 401)
	p.expect(t, "new", question{authorization: bearer(fresh)}, 200)
	p.token.Store(nil)
	p.expect(t, "none to compare with", question{authorization: bearer(fresh)}, 401)
}

func TestHTTPOneWithoutAHostIsMisdirected(t *testing.T) {
	addr, _ := serve(t, newPort(t, "127.0.0.1:9993", password).Server)
	for request, want := range map[string]int{
		"GET /api/v1/policy HTTP/1.0\r\n\r\n":                                                       421,
		"GET /api/v1/policy HTTP/1.0\r\nHost: localhost\r\n\r\n":                                    200,
		"GET /api/v1/policy HTTP/1.0\r\nAuthorization: " + bearer(password) + "\r\n\r\n":            200,
		"GET http://evil.example/api/v1/policy HTTP/1.1\r\nHost: localhost\r\n\r\n":                 421,
		"GET /api/v1/policy HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n":              400,
		"GET /healthz HTTP/1.0\r\n\r\n":                                                             200,
		"OPTIONS /api/v1/policy HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n": 405,
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprint(conn, request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: status %d, want %d", request, resp.StatusCode, want)
		}
	}
}

// address is one of many networks.
func address(i int) netip.Prefix {
	return policy.ClientPrefix(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}))
}

func TestManyAddressesAreRememberedInBoundedMemory(t *testing.T) {
	g, now := new(guesses), time.Unix(0, 0)
	for i := range maxClients {
		g.try(address(i), true, now)
	}
	tried := 0
	for i := range 5 * maxClients {
		if wait, _ := g.try(address(maxClients+i), true, now); wait == 0 {
			tried++
		}
	}
	if tried != maxWrong {
		t.Errorf("those who found no room had %d tries, want %d", tried, maxWrong)
	}
	if n := len(g.recent); n != maxClients+1 {
		t.Errorf("%d addresses are remembered", n)
	}
	if wait, _ := g.try(address(0), true, now); wait != 0 {
		t.Error("one that is remembered suffers from those that are not")
	}
	now = now.Add(guessMemory)
	if wait, _ := g.try(address(1<<20), true, now); wait != 0 {
		t.Error("a minute later there is no room")
	}
	if n := len(g.recent); n != 1 {
		t.Errorf("%d addresses are remembered a minute later", n)
	}
}

func TestAMinuteOfGuessesNeverHoldsMoreThanTen(t *testing.T) {
	g, now := new(guesses), time.Unix(0, 0)
	var tries []time.Time
	for i := range 10_000 {
		now = now.Add(time.Duration(i*7919%5000) * time.Millisecond)
		if wait, _ := g.try(address(1), true, now); wait == 0 {
			tries = append(tries, now)
		}
	}
	for i := maxWrong; i < len(tries); i++ {
		if d := tries[i].Sub(tries[i-maxWrong]); d < guessMemory {
			t.Fatalf("%d tries in %v", maxWrong+1, d)
		}
	}
	if n := cap(g.recent[address(1)]); len(tries) < 1000 || n > 4*maxWrong {
		t.Errorf("%d tries, room for %d", len(tries), n)
	}
}

func TestGuessesAtOnceAreNoMore(t *testing.T) {
	p := newPort(t, ":9993", password)
	var count [600]atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			q := question{peer: "192.0.2.7:" + strconv.Itoa(i+1), authorization: bearer(wrong)}
			count[p.ask(q).Code].Add(1)
		})
	}
	wg.Wait()
	if a, b := count[401].Load(), count[429].Load(); a != maxWrong || b != 50-maxWrong {
		t.Errorf("%d answered, %d refused", a, b)
	}
}

// A guard is let go by those with access, and by no page that a browser shows.
func TestAGuardIsReleasedByThoseWithAccess(t *testing.T) {
	type released struct{ rule, until string }
	var got []released
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	handler := GuardHandler(func(_ context.Context, rule, until string) (Released, error) {
		switch {
		case rule == "calm" && until == "":
			return Released{}, fmt.Errorf("calm: %w", ErrNotTripped)
		case rule == "away":
			return Released{}, fmt.Errorf("%w: no route", ledger.ErrAway)
		case rule != "cutover":
			return Released{}, errors.New("no such guard")
		}
		got = append(got, released{rule, until})
		return Released{}, nil
	})
	token, err := ReadToken(tokenFile(t, password))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Metrics: metrics, Readiness: readinessOf(), Listen: "127.0.0.1:9993", Now: func() time.Time { return now },
		Token: func() *Token { return token }, API: http.NotFoundHandler(), Page: http.NotFoundHandler(), Guard: handler, Log: silent})
	const path = "/api/v1/guards?release=cutover"
	elsewhere := New(Options{Metrics: metrics, Readiness: readinessOf(), Listen: "192.0.2.1:9993", Now: func() time.Time { return now },
		Token: func() *Token { return token }, API: http.NotFoundHandler(), Page: http.NotFoundHandler(), Guard: handler, Log: silent})
	for given, status := range map[string]int{"": 401, bearer(wrong): 401, bearer(password): 200} {
		r := httptest.NewRequest("POST", path, nil)
		r.RemoteAddr, r.Host = "192.0.2.9:4711", "192.0.2.1:9993"
		r.Header.Set("Authorization", given)
		w := httptest.NewRecorder()
		elsewhere.http.Handler.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("off loopback with %q: status %d, want %d", given, w.Code, status)
		}
	}
	got = nil
	for _, tt := range []struct {
		what, method, path, host string
		header                   map[string]string
		status                   int
	}{
		{"a command", "POST", path, "127.0.0.1:9993", nil, 200},
		{"with a time", "POST", path + "&until=2026-11-25T13:00:00Z", "127.0.0.1:9993", nil, 200},
		{"a slip of the pen", "POST", path + "&untill=2026-11-25T13:00:00Z", "127.0.0.1:9993", nil, 400},
		{"another rule", "POST", "/api/v1/guards?release=x", "127.0.0.1:9993", nil, 400},
		{"one that has not tripped", "POST", "/api/v1/guards?release=calm", "127.0.0.1:9993", nil, 409},
		{"while the ledger is away", "POST", "/api/v1/guards?release=away", "127.0.0.1:9993", nil, 503},
		{"a form", "POST", path, "127.0.0.1:9993", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
		{"a page of another site", "POST", path, "127.0.0.1:9993", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"an old browser's", "POST", path, "127.0.0.1:9993", map[string]string{"Origin": "https://evil.example"}, 403},
		{"another name", "POST", path, "evil.example", nil, 421},
		{"a wrong token", "POST", path, "127.0.0.1:9993", map[string]string{"Authorization": bearer(wrong)}, 401},
		{"a question", "GET", path, "127.0.0.1:9993", nil, 404},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:4711", tt.host
		for k, v := range tt.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.what, w.Code, tt.status, w.Body)
		}
	}
	if want := []released{{"cutover", ""}, {"cutover", "2026-11-25T13:00:00Z"}}; !slices.Equal(got[:min(2, len(got))], want) {
		t.Errorf("%v, want %v first", got, want)
	}
}
