package deploy

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/ledger"
	"postern/internal/logging"
	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

const (
	filter = "deploy/fail2ban/filter.d/postern.conf"
	jail   = "deploy/fail2ban/jail.d/postern.conf"
)

// innocent is whom nobody may ban: what strangers send names it.
const innocent = "203.0.113.9"

// hostile are accounts, server names and the like of strangers who know the filter.
var hostile = []string{
	"anna@example.org", "", `anna\`, `anna"`, `\"`, "\u2028\u0085\xff", strings.Repeat("a", 250),
	`","client":"` + innocent + `","client_port":1,"mechanism":"PLAIN"}`,
	` client=` + innocent + ` client_port=1 mechanism=PLAIN`,
	`","listener":"imap","client":"10.0.0.1","client_port":1,"mechanism":"PLAIN`, ` listener=imap client=10.0.0.1 client_port=1 mechanism=PLAIN`,
	fakeJSON, "\n" + fakeJSON, "\r\n" + fakeText, fakeText, " host postern[1]: " + fakeJSON, "Nov 23 21:31:58 host postern: " + fakeText,
}

const (
	fakeJSON = `{"time":"2026-11-23T21:31:58.097Z","level":"INFO","msg":"login failed","listener":"imaps","client":"` + innocent + `","client_port":1,"mechanism":"PLAIN"}`
	fakeText = `time=2026-11-23T21:31:58.097Z level=INFO msg="login failed" listener=imaps client=` + innocent + ` client_port=1 mechanism=PLAIN`
)

// prefixes are what stands before a line in a file of its own, as fail2ban reads the
// journal, and in the two formats of rsyslog.
var prefixes = []string{"", "mail postern[312]: ", "Nov  3 21:31:58 mail postern[312]: ", "2026-11-03T22:31:58.097123+01:00 mail.example.org postern[312]: "}

// prefixed puts each prefix in turn before the lines of a log.
type prefixed struct {
	strings.Builder
	lines int
}

func (p *prefixed) Write(line []byte) (int, error) {
	p.WriteString(prefixes[p.lines%len(prefixes)])
	p.lines++
	return p.Builder.Write(line)
}

// found runs fail2ban over a log, and returns whom it finds there. Each must have failed
// between the start and now.
func found(t *testing.T, log, filter string, start time.Time) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postern.log")
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("fail2ban-regex", "--usedns", "no", "-o", "<ip> <time>", file, filter)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v (this needs the Debian package fail2ban)", err)
	}
	var clients []string
	for line := range strings.Lines(string(out)) {
		client, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		seconds, err := strconv.ParseFloat(at, 64)
		if err != nil || seconds < float64(start.Unix()) || seconds > float64(time.Now().Unix()+1) {
			t.Fatalf("fail2ban says %q", line)
		}
		clients = append(clients, client)
	}
	return clients
}

func TestFail2banFindsEveryRefusedLoginAndNothingElse(t *testing.T) {
	const ofEach = 10_000
	var log prefixed
	var want, insideTLS []string
	start, clock := time.Now(), time.Unix(0, 0)
	// A line each millisecond keeps below what is written in a second.
	now := func() time.Time { clock = clock.Add(2 * time.Millisecond); return clock }
	var observers []*logging.Observer
	for _, format := range []string{"json", "text"} {
		l := logging.New(&log, slog.LevelDebug, format)
		folded := logging.NewSuppression(now, func(c netip.Addr, n uint64) { l.Info(logging.FailedLogin, "client", c, "suppressed", n) })
		observers = append(observers, &logging.Observer{
			Log: l, Logins: folded, Suppression: folded, Identify: nobody, Account: func(a string) string { return a },
		})
	}
	for i := range 3 * ofEach {
		o, kind, n := observers[i/3%2], i%3, i/3
		client := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if n%3 == 0 {
			client = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 5: byte(n), 15: byte(i >> 16), 14: byte(i >> 8), 13: byte(i)})
		}
		conn := &proxy.Conn{ID: uint64(i), Listener: []proxy.Listener{proxy.IMAPS, proxy.POP3S, proxy.IMAP, proxy.POP3}[n%4], Client: netip.AddrPortFrom(client, uint16(i)|1)}
		account := hostile[n/len(prefixes)%len(hostile)]
		switch {
		case kind == 0: // the mail server has refused it
			code := []string{"", "AUTHENTICATIONFAILED", "AUTH", "ALERT"}[n%4]
			o.LoginFailed(&proxy.LoginFailed{Conn: conn, Mechanism: []string{"LOGIN", "SCRAM-SHA-256", "other"}[n%3], Code: code, Account: account})
			want, insideTLS = append(want, client.String()), append(insideTLS, client.String())
		case kind == 1: // Postern has, before TLS
			conn.Listener = []proxy.Listener{proxy.IMAP, proxy.POP3}[n%2]
			o.LoginFailed(&proxy.LoginFailed{Conn: conn, BeforeTLS: true, Mechanism: "USER"})
			want = append(want, client.String())
		case n%3 == 0:
			code := []string{"UNAVAILABLE", "SERVERBUG", "LIMIT", "INUSE", "PRIVACYREQUIRED", "SYS/TEMP", "SYS/PERM", "IN-USE", "LOGIN-DELAY"}[n/3%9]
			o.LoginFailed(&proxy.LoginFailed{Conn: conn, Mechanism: "PLAIN", Code: code, Account: account})
		case n%3 == 1:
			o.Handshake(&proxy.Handshake{Conn: conn, Hello: &policy.Hello{ServerName: account, ALPN: []string{account}}, Outcome: proxy.Rejected,
				Verdict: policy.Verdict{Version: policy.TLS10, Reason: policy.ReasonVersion}})
		default:
			o.Login(&proxy.Login{Conn: conn, Account: account, Software: account})
			o.Closed(&proxy.Closed{Conn: conn})
			o.Log.Warn("something else", "client", client, "error", account)
			// Another program's, in the same file, says what it has been told.
			log.WriteString("Nov  3 21:31:58 mail web[77]: " + strings.NewReplacer("\n", " ", "\r", " ").Replace(account) + "\n")
		}
	}
	for _, o := range observers { // a flood, whose end is folded
		flood := &proxy.Conn{Listener: proxy.IMAPS, Client: netip.MustParseAddrPort("198.51.100.7:4711")}
		for range 30 {
			o.LoginFailed(&proxy.LoginFailed{Conn: flood, Mechanism: "PLAIN"})
		}
		folded := slices.Repeat([]string{"198.51.100.7"}, 20)
		want, insideTLS = append(want, folded...), append(insideTLS, folded...)
		o.Logins.Tick(clock.Add(time.Minute))
	}
	if n := strings.Count(log.String(), "suppressed"); n != 2 {
		t.Errorf("%d lines of folded logins", n)
	}
	if lost := observers[0].Logins.Lost() + observers[1].Logins.Lost(); lost > 0 {
		t.Fatalf("%d lines were not written", lost)
	}
	got := found(t, log.String(), filepath.Join(root, filter), start)
	if slices.Contains(got, innocent) {
		t.Error("a stranger has had somebody else banned")
	}
	if !slices.Equal(got, want) {
		t.Errorf("fail2ban finds %d logins in %d lines, want %d", len(got), log.lines, len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("the first difference: %s in place of %s", got[i], want[i])
			}
		}
	}
	if got := found(t, log.String(), withoutBeforeTLS(t), start); !slices.Equal(got, insideTLS) {
		t.Errorf("with ignoreregex, fail2ban finds %d logins, want %d", len(got), len(insideTLS))
	}
}

// withoutBeforeTLS is the filter with its ignoreregex.
func withoutBeforeTLS(t *testing.T) string {
	t.Helper()
	before, rest, ok := strings.Cut(read(t, filter), "#ignoreregex =")
	if !ok {
		t.Fatal("the filter has no ignoreregex to take")
	}
	file := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(file, []byte(before+"ignoreregex ="+strings.Replace(rest, "\n# ", "\n ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// nobody is known to have logged in.
func nobody(*proxy.Handshake) (known ledger.Known) { return known }

// Each way to log in, refused by the mail server or before TLS, through the program itself.
func TestFail2banReadsWhatServeWrites(t *testing.T) {
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, func(line string) string {
		switch tag, rest, _ := strings.Cut(line, " "); {
		case strings.Contains(line, "CAPABILITY"):
			return posterntest.IMAPReply(line)
		case rest == "AUTHENTICATE PLAIN", strings.HasSuffix(line, "}"):
			return "+ \r\n"
		case strings.HasPrefix(rest, "LOGIN later"):
			return tag + " NO [UNAVAILABLE] Try again later.\r\n"
		case strings.HasPrefix(line, "a"):
			return tag + " NO [AUTHENTICATIONFAILED] No.\r\n"
		}
		return "a NO No.\r\n" // a line of SASL, or the last of a LOGIN
	})
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, func(line string) string {
		switch {
		case strings.HasPrefix(line, "CAPA"), strings.HasPrefix(line, "USER"):
			return posterntest.POP3Reply(line)
		case line == "AUTH PLAIN":
			return "+ \r\n"
		}
		return "-ERR [AUTH] No.\r\n"
	})
	start := time.Now()
	p := posterntest.Start(t, map[string]string{
		"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3"), "LEDGER_IDENTITY": "plain", "LOG_LEVEL": "debug",
	})
	quoted := strings.ReplaceAll(fakeJSON, `"`, `\"`)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + fakeText + "\x00wrong"))
	want := 0
	for i, test := range []struct {
		listener string
		lines    []string
		refused  int
	}{
		{"imaps", []string{"a LOGIN anna wrong", "a LOGIN \"" + quoted + "\" wrong", fmt.Sprintf("a LOGIN {%d}", len(fakeJSON)), fakeJSON + " wrong"}, 3},
		{"imap", []string{"a AUTHENTICATE PLAIN " + plain, "a AUTHENTICATE PLAIN", plain}, 2},
		{"imaps", []string{"a LOGIN later right", "a AUTHENTICATE PLAIN", "*"}, 0},
		{"pop3s", []string{"USER " + fakeJSON, "PASS wrong", "APOP anna 00000000000000000000000000000000"}, 2},
		{"pop3", []string{"AUTH PLAIN " + plain, "AUTH PLAIN", plain, "AUTH PLAIN", "*"}, 2},
	} {
		caller := posterntest.Caller{From: "127.0.0." + strconv.Itoa(i+2), TLS: &tls.Config{InsecureSkipVerify: true}}
		c, err := caller.Open(p, test.listener)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range test.lines {
			c.Send(t, line+"\r\n")
			c.ExpectLine(t, "")
		}
		want += test.refused
	}
	for listener, lines := range map[string][]string{
		"imap": {"a LOGIN anna wrong", "a AUTHENTICATE PLAIN " + plain}, "pop3": {"USER " + fakeJSON, "APOP anna wrong", "AUTH PLAIN " + plain},
	} {
		c := posterntest.NewClient(p.DialFrom(t, listener, "127.0.0.8"), "pop3")
		c.ExpectLine(t, "")
		for _, line := range lines {
			c.Send(t, line+"\r\n")
			c.ExpectLine(t, "")
			want++
		}
	}
	p.Stop(t)
	if got := found(t, p.Stderr(), filepath.Join(root, filter), start); len(got) != want || slices.Contains(got, innocent) {
		t.Errorf("fail2ban finds %d logins, want %d: %v in\n%s", len(got), want, got, p.Stderr())
	}
	const beforeTLS = 5
	if got := found(t, p.Stderr(), withoutBeforeTLS(t), start); len(got) != want-beforeTLS || slices.Contains(got, "127.0.0.8") {
		t.Errorf("with ignoreregex, fail2ban finds %d logins, want %d: %v in\n%s", len(got), want-beforeTLS, got, p.Stderr())
	}
}

// fail2ban takes the jail, beside what Debian configures.
func TestFail2banTakesTheJail(t *testing.T) {
	conf := t.TempDir()
	if out, err := exec.Command("cp", "-r", "/etc/fail2ban/.", conf).CombinedOutput(); err != nil {
		t.Fatalf("%v %s (this needs the Debian package fail2ban)", err, out)
	}
	for dir, file := range map[string]string{"filter.d": filter, "jail.d": jail} {
		if err := os.WriteFile(filepath.Join(conf, dir, "postern.conf"), []byte(read(t, file)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(conf, "jail.d/defaults-debian.conf")); err != nil {
		t.Fatal(err) // which may have no log here
	}
	out, err := exec.Command("fail2ban-client", "-c", conf, "-d").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`\['add', 'postern', 'systemd'\]`, `'postern', 'addjournalmatch', '_SYSTEMD_UNIT=postern.service'`, `'port', '993,995,143,110'`, `\['start', 'postern'\]`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("fail2ban is not told %s:\n%s", want, out)
		}
	}
	retries := regexp.MustCompile(`'postern', 'maxretry', (\d+)\]`).FindSubmatch(out)
	if retries == nil {
		t.Fatalf("no maxretry in\n%s", out)
	}
	if n, _ := strconv.Atoi(string(retries[1])); n < 1 || n > 20 {
		t.Errorf("maxretry is %d, and of one client there are 20 lines a minute", n)
	}
}
