package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/mailproto"
	"postern/internal/posterntest"
	"postern/policy"
)

// The ways in which the upstream of a fuzzed session behaves.
const (
	fuzzPOP3   = 1 << iota // else IMAP
	fuzzRaw                // it answers with any bytes; else as a server would
	fuzzStrict             // it takes a literal only outside of quotes and atoms
	fuzzDeaf               // it says LITERAL+, and takes none without synchronization
)

// FuzzRelay has a session of any client bytes against an upstream that
// answers as script says. What reaches the upstream has to be what the client
// sent, but for the edits that have a name, and the same the other way round;
// and a server of its own, with its own idea of what a command is, must not
// see one that was not for it.
func FuzzRelay(f *testing.F) {
	for _, s := range relaySeeds {
		f.Add([]byte(s.client), []byte(s.script), s.mode)
	}
	stub := newRelayStub(f)
	f.Fuzz(func(t *testing.T, client, script []byte, mode byte) {
		if len(client) > 4096 || len(script) > 4096 {
			return // more of the same
		}
		run := &relayRun{mode: mode & (fuzzPOP3 | fuzzRaw | fuzzStrict | fuzzDeaf), script: script}
		answered, why := stub.session(t, run, client)
		run.mu.Lock()
		defer run.mu.Unlock()
		rest := checkCopied(t, run, client)
		checkDelivered(t, run, answered)
		for _, c := range run.commands {
			run.judge(t, c)
		}
		if run.smuggled != "" {
			t.Fatalf("a literal that nobody asked for has a NUL in it: %q", run.smuggled)
		}
		if run.mode&fuzzRaw == 0 && !run.loggedIn {
			run.judge(t, run.broken)
		}
		if run.loggedIn && run.mode&fuzzRaw == 0 && len(rest) > 0 {
			t.Fatalf("after the login %q was lost", rest)
		}
		if run.mode&fuzzRaw == 0 && why == ReasonClient && !run.hungUp && !bytes.Contains(client, []byte("{")) {
			for line := range bytes.Lines(rest) {
				if bytes.HasSuffix(line, []byte("\r\n")) && !refusedCommand(run.mode, line) && !malformed(run.mode, line) {
					t.Fatalf("%q was lost", line)
				}
			}
		}
	})
}

// relayStub is one proxy for all sessions of a fuzz worker, and its upstream.
type relayStub struct {
	proxy  *Proxy
	up     *posterntest.Upstream
	config *tls.Config
	runs   chan *relayRun // the one under way, put back after each look
	closed int
}

func newRelayStub(t testing.TB) *relayStub {
	s := &relayStub{runs: make(chan *relayRun, 1)}
	s.runs <- &relayRun{}
	s.up = posterntest.StartRawUpstream(t, func(c net.Conn) {
		run := <-s.runs
		s.runs <- run
		if strings.HasPrefix(lineOf(c), "PROXY TCP4 127.0.0.1 127.0.0.1 "+run.port+" ") {
			run.serve(c.(halfCloser))
		} // else it is the prober
	})
	s.proxy = StartProxy(t, policy.Enforce, s.up.Addr(), s.up.Addr(), func(c *Config) {
		c.UpstreamTimeout, c.UpstreamProxyProtocol = 100*time.Millisecond, 1
	})
	s.config = s.proxy.ClientConfig()
	s.config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	return s
}

// lineOf reads a line, and nothing behind it.
func lineOf(c net.Conn) string {
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b...) {
		if _, err := io.ReadFull(c, b); err != nil {
			break
		}
	}
	return string(line)
}

// watchdog is how long one fuzzed session may take. An upstream may answer a client
// that has closed its side for two seconds; one that hangs does so for a minute.
const watchdog = 20 * time.Second

// session sends what the client has to say and returns what it was answered
// and why the proxy ended it.
func (s *relayStub) session(t *testing.T, run *relayRun, client []byte) (answered []byte, why CloseReason) {
	guard := time.AfterFunc(watchdog, func() {
		buf := make([]byte, 1<<20)
		panic("a session hangs\n" + string(buf[:runtime.Stack(buf, true)]))
	})
	defer guard.Stop()
	l := IMAPS
	if run.mode&fuzzPOP3 != 0 {
		l = POP3S
	}
	nc, err := net.Dial("tcp", s.proxy.Addr(l))
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	_, run.port, _ = net.SplitHostPort(nc.LocalAddr().String())
	<-s.runs
	s.runs <- run
	c := tls.Client(nc, s.config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.Write(client)
		c.CloseWrite()
	}()
	answered, _ = io.ReadAll(c)
	<-written
	c.Close()
	s.closed++
	end := s.proxy.WaitClosed(t, s.closed)
	for s.up.Open() > 0 { // it may still read what was sent to it
		time.Sleep(time.Millisecond)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	loggedIn := slices.Contains(s.proxy.Events(end.ID), "login")
	if run.mode&fuzzRaw == 0 && run.loggedIn && !loggedIn && end.Reason == ReasonClient && len(answered) > 0 {
		t.Fatalf("the login was not noticed; events %v, answered %q", s.proxy.Events(end.ID), answered)
	}
	run.loggedIn = loggedIn
	return answered, end.Reason
}

// checkCopied walks through what the client sent and what came, line by line,
// and returns what did not come.
func checkCopied(t *testing.T, run *relayRun, client []byte) (rest []byte) {
	t.Helper()
	got := run.received
	for len(got) > 0 {
		line, _, _ := bytes.Cut(client, []byte("\n"))
		line = client[:min(len(line)+1, len(client))]
		if size, gotSize, ok := sameID(run.mode, client, got); ok {
			client, got = client[size:], got[gotSize:]
			continue
		}
		if isID(run.mode, line) && partOfID(got) {
			return nil
		}
		switch {
		case len(line) == 0:
			t.Fatalf("more came than was sent: %q", got)
		case bytes.HasPrefix(got, line):
			client, got = client[len(line):], got[len(line):]
		case bytes.HasPrefix(line, got) && run.mode&fuzzRaw != 0:
			return nil // the upstream went in the middle of it
		case bytes.HasSuffix(line, []byte("\r\n")) && refusedCommand(run.mode, line):
			client = client[len(line):]
		case len(got) < len(client) && bytes.HasPrefix(client, got):
			return client[len(got):] // it ends inside of a line, with a literal
		case bytes.HasSuffix(line, []byte("\r\n")) && malformed(run.mode, line):
			client = client[len(line):]
		default:
			t.Fatalf("sent %q\n came %q\nfrom %q", line, got, run.received)
		}
	}
	return client
}

// refusedCommand reports whether a line is a command that the proxy answers.
func refusedCommand(mode byte, line []byte) bool {
	words := strings.Fields(string(line))
	names := []string{"STARTTLS", "XCLIENT", "COMPRESS"}
	if mode&fuzzPOP3 != 0 {
		names, words = []string{"STLS", "XCLIENT"}, append([]string{"tag"}, words...)
	}
	return len(words) > 1 && slices.Contains(names, strings.ToUpper(words[1]))
}

var (
	wholeCommand = regexp.MustCompile(`^[^\x00-\x20\x7f-\x{10ffff}(){%*"\\+]+ [^\x00-\x20\x7f-\x{10ffff}(){%*"\\\]]+(| .*)\r\n$`)
	keywordFirst = regexp.MustCompile(`^[^\x00-\x20\x7f-\x{10ffff}(){%*"\\\]]+(| .*)\r\n$`)
	anyLiteral   = regexp.MustCompile(`\{\d+\+?\}\r\n$`)
)

// malformed reports whether a line is no command, or an ID whose arguments are none,
// which the proxy answers too. Where it announces a literal, the session ends.
func malformed(mode byte, line []byte) bool {
	if mode&fuzzPOP3 != 0 {
		return !keywordFirst.Match(line)
	}
	if anyLiteral.Match(line) || string(line) == "\r\n" {
		return false
	}
	return !wholeCommand.Match(line) || partOfID(line)
}

func isID(mode byte, line []byte) bool {
	_, rest, _ := strings.Cut(string(line), " ")
	name := rest[:max(0, strings.IndexAny(rest, " \r"))]
	return mode&fuzzPOP3 == 0 && posterntest.ASCIIUpper(name) == "ID"
}

// sameID compares an ID with what came of it: the same tag, and the honest
// fields.
func sameID(mode byte, client, got []byte) (size, gotSize int, ok bool) {
	line, _, _ := bytes.Cut(client, []byte("\n"))
	if !isID(mode, line) {
		return 0, 0, false
	}
	size, sent, ok1 := wholeID(client)
	gotSize, came, ok2 := wholeID(got)
	if !ok1 || !ok2 || !bytes.Equal(idHead(client), idHead(got)) {
		return 0, 0, false
	}
	want, _ := posterntest.WithoutForbidden(sent)
	var honest []string
	for i := 0; i+1 < len(came); i += 2 {
		blank := strings.Trim(came[i], "xX") == "" && len(came[i]) >= len("x-proxy-ttl")
		if came[i] != "x-removed" && !blank || slices.Contains(sent, came[i]) {
			honest = append(honest, came[i], came[i+1])
		}
	}
	return size, gotSize, slices.Equal(honest, want)
}

// idHead is the tag and the name of a command.
func idHead(b []byte) []byte {
	i := bytes.IndexByte(b, ' ')
	return b[:min(i+3, len(b))]
}

// wholeID finds the end of the ID command that b begins with, and its strings.
func wholeID(b []byte) (size int, list []string, ok bool) {
	for rest := b; ; {
		line, after, err := posterntest.NextLine(rest)
		if err != nil {
			return 0, nil, false
		}
		size += len(line)
		lit, more := mailproto.LiteralAtEnd(line)
		if !more {
			break
		}
		if lit.Size > len(after) {
			return 0, nil, false
		}
		size, rest = size+lit.Size, after[lit.Size:]
	}
	list, ok = posterntest.IDStrings(b[len(idHead(b)):size])
	return size, list, ok
}

// partOfID reports whether b is an ID that breaks off, or is malformed.
func partOfID(b []byte) bool {
	if line, _, err := posterntest.NextLine(b); err != nil || !isID(0, line) {
		return false
	}
	_, _, whole := wholeID(b)
	return !whole
}

// checkDelivered walks through what the upstream sent and what the client got.
func checkDelivered(t *testing.T, run *relayRun, answered []byte) {
	t.Helper()
	sent := run.sent
	for len(answered) > 0 {
		line := firstLine(answered)
		from := firstLine(sent)
		edited := edited(run.mode, from)
		switch {
		case bytes.Equal(line, edited), len(from) > 0 && bytes.Equal(line, from) && run.loggedIn && run.mode&fuzzRaw != 0:
			sent, answered = sent[len(from):], answered[len(line):]
		case len(from) > 0 && len(edited) == 0:
			sent = sent[len(from):]
		case ownLine(run.mode, line):
			answered = answered[len(line):]
		case !bytes.HasSuffix(line, []byte("\n")) && bytes.HasPrefix(from, line):
			return // it breaks off
		default:
			t.Fatalf("the client read %q where the upstream said %q\nafter %q", line, from, run.sent)
		}
	}
}

func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1]
	}
	return b
}

// ownLine reports whether a line is one that the proxy says itself.
func ownLine(mode byte, line []byte) bool {
	s := string(line)
	if mode&fuzzPOP3 != 0 {
		return strings.HasPrefix(s, "-ERR ") && strings.HasSuffix(s, ".\r\n")
	}
	return strings.HasPrefix(s, "* BYE ") && strings.HasSuffix(s, ".\r\n") || strings.HasSuffix(s, " is not available here.\r\n") ||
		strings.HasSuffix(s, " BAD Malformed command.\r\n") || strings.HasSuffix(s, " BAD Malformed ID.\r\n")
}

// The lists of capabilities, in upper case.
var (
	listIn = map[byte][]*regexp.Regexp{
		0:        {regexp.MustCompile(`^\* CAPABILITY( [^\r\n]*)`), regexp.MustCompile(`^[^ ]+ (?:OK|NO|BAD|PREAUTH|BYE) \[CAPABILITY( [^\]\n]*)\]`)},
		fuzzPOP3: {regexp.MustCompile(`^SASL( [^\r\n]*)`)},
	}
	wordInList = regexp.MustCompile(` +[^ ]*`)
)

// edited is a line of the upstream's as a client may see it: the rule, once
// more.
func edited(mode byte, line []byte) []byte {
	upper := posterntest.ASCIIUpper(string(line))
	bare := strings.TrimRight(upper, "\r\n")
	if mode&fuzzPOP3 != 0 && (bare == "STLS" || bare == "XCLIENT" || strings.HasSuffix(bare, "-PLUS") && !strings.Contains(bare, " ")) {
		return nil
	}
	for _, list := range listIn[mode&fuzzPOP3] {
		at := list.FindStringSubmatchIndex(upper)
		if at == nil {
			continue
		}
		kept := wordInList.ReplaceAllStringFunc(string(line[at[2]:at[3]]), func(word string) string {
			name := strings.TrimLeft(word, " ")
			if !posterntest.HoldsInsideTLS(name) || mode&fuzzPOP3 != 0 && strings.HasSuffix(posterntest.ASCIIUpper(name), "-PLUS") {
				return ""
			}
			return word
		})
		if mode&fuzzPOP3 != 0 && kept == "" {
			return nil
		}
		return slices.Concat(line[:at[2]], []byte(kept), line[at[3]:])
	}
	return line
}
