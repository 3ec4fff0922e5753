package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postern/internal/mailproto"
	"postern/internal/posterntest"
)

// halfCloser is what a connection can do here.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// relayRun is one fuzzed session, seen from the upstream.
type relayRun struct {
	mode   byte
	script []byte
	port   string // of the client

	mu       sync.Mutex
	received []byte
	sent     []byte
	commands []string // whole, as a server would read them, up to the login
	broken   string   // the last one, where it breaks off
	smuggled string   // a literal without synchronization that holds a NUL
	loggedIn bool
	hungUp   bool
}

// say writes, and remembers what.
func (r *relayRun) say(c net.Conn, s string) {
	r.mu.Lock()
	r.sent = append(r.sent, s...)
	r.mu.Unlock()
	io.WriteString(c, s)
}

// tap remembers what is read.
type tap struct {
	halfCloser
	run *relayRun
}

func (c tap) Read(p []byte) (int, error) {
	n, err := c.halfCloser.Read(p)
	c.run.mu.Lock()
	c.run.received = append(c.run.received, p[:n]...)
	c.run.mu.Unlock()
	return n, err
}

func (r *relayRun) serve(c halfCloser) {
	if r.mode&fuzzPOP3 != 0 {
		r.greet(c, "+OK ready\r\n")
	} else {
		r.greet(c, "* OK [CAPABILITY IMAP4rev1 STARTTLS LITERAL+] ready\r\n")
	}
	in := tap{c, r}
	if r.mode&fuzzRaw != 0 {
		r.serveRaw(in)
	} else {
		r.serveCommands(in, bufio.NewReader(in))
	}
	io.Copy(io.Discard, in)
}

// greet is say, but the prober is greeted too: it is remembered once.
func (r *relayRun) greet(c net.Conn, s string) {
	r.mu.Lock()
	if r.sent == nil {
		r.sent = []byte(s)
	}
	r.mu.Unlock()
	io.WriteString(c, s)
}

// serveRaw answers each read with the next piece of the script, whatever that
// is, and closes its side after the last.
func (r *relayRun) serveRaw(c halfCloser) {
	buf := make([]byte, 4096)
	for piece := range bytes.SplitSeq(r.script, []byte{0xff}) {
		if _, err := c.Read(buf); err != nil {
			return
		}
		r.say(c, string(piece))
		if !bytes.HasSuffix(piece, []byte("\n")) {
			break
		}
	}
	c.CloseWrite()
}

// next is the next decision; there are always more.
func (r *relayRun) next() byte {
	if len(r.script) == 0 {
		return 0
	}
	b := r.script[0]
	r.script = r.script[1:]
	return b
}

var lenientLiteral = regexp.MustCompile(`\{(\d+)(\+?)\}\r?\n$`)

var (
	quotedText   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	aloneLiteral = regexp.MustCompile(`[ (]~?\{\d+\+?\}\r?\n$`)
)

// strictLiteral reports whether a line ends in a literal that is neither part
// of an atom nor inside of quotes.
func strictLiteral(line string) bool {
	rest := quotedText.ReplaceAllString(line, "q")
	return aloneLiteral.MatchString(rest) && !strings.Contains(rest, `"`)
}

// serveCommands reads commands as leniently as any server might, and answers
// them as the script says until a login has succeeded.
func (r *relayRun) serveCommands(c halfCloser, in *bufio.Reader) {
	for {
		text, ok := r.readCommand(c, in)
		if !ok {
			r.mu.Lock()
			r.broken = text
			r.mu.Unlock()
			return
		}
		words := strings.Fields(text)
		if len(words) == 0 {
			continue // no command has no answer
		}
		r.mu.Lock()
		r.commands = append(r.commands, text)
		r.mu.Unlock()
		if !r.answer(c, in, words) {
			return
		}
	}
}

// readCommand reads a line with its literals; ok is false at the end.
func (r *relayRun) readCommand(c net.Conn, in *bufio.Reader) (text string, ok bool) {
	for {
		line, err := in.ReadString('\n')
		text += line
		if err != nil {
			return text, false
		}
		m := lenientLiteral.FindStringSubmatch(line)
		if m == nil || m[2] != "" && r.mode&fuzzDeaf != 0 || r.mode&fuzzPOP3 != 0 || r.mode&fuzzStrict != 0 && !strictLiteral(line) {
			return text, true
		}
		if m[2] == "" {
			if r.next()%8 == 1 {
				return text, true // refused: no octets will come
			}
			r.say(c, "+ go ahead\r\n")
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > mailproto.MaxLiterals {
			return text, true
		}
		octets := make([]byte, n)
		n, err = io.ReadFull(in, octets)
		text += string(octets[:n])
		if m[2] != "" && bytes.ContainsRune(octets[:n], 0) {
			r.mu.Lock()
			r.smuggled = string(octets[:n])
			r.mu.Unlock()
		}
		if err != nil {
			return text, false
		}
	}
}

// answer gives the answer to one command; it reports whether there will be
// more.
func (r *relayRun) answer(c halfCloser, in *bufio.Reader, words []string) (more bool) {
	good, fine, bad, list, login := words[0]+" OK", " done", words[0]+" BAD no\r\n", "* CAPABILITY IMAP4rev1 STARTTLS AUTH=X-PLUS AUTH=X\r\n", false
	if len(words) > 1 {
		login = slices.Contains([]string{"LOGIN", "AUTHENTICATE"}, posterntest.ASCIIUpper(words[1]))
	}
	if r.mode&fuzzPOP3 != 0 {
		verb := posterntest.ASCIIUpper(words[0])
		good, bad, list = "+OK", "-ERR no\r\n", ""
		login = verb == "PASS" || verb == "APOP" || verb == "AUTH" && len(words) > 1
		if verb == "CAPA" || len(words) == 1 && (verb == "AUTH" || verb == "LANG") {
			fine = " list\r\nSTLS\r\nSASL X-PLUS PLAIN\r\nY-PLUS\r\n."
		}
	}
	for {
		switch r.next() % 8 {
		case 1, 2:
			r.say(c, bad)
			return true
		case 3:
			r.say(c, "+ \r\n")
			if _, err := in.ReadString('\n'); err != nil {
				return false
			}
			continue
		case 4:
			r.say(c, list)
			continue
		case 5:
			if r.mode&fuzzPOP3 == 0 {
				fine = " [CAPABILITY STARTTLS IMAP4rev1] done"
			}
		case 7:
			r.mu.Lock()
			r.hungUp = true
			r.mu.Unlock()
			c.CloseWrite()
			return false
		}
		r.mu.Lock()
		r.loggedIn = login
		r.mu.Unlock()
		r.say(c, good+fine+"\r\n")
		return !login
	}
}

// judge fails where a command was not for the upstream.
func (r *relayRun) judge(t *testing.T, text string) {
	t.Helper()
	if refusedCommand(r.mode, []byte(text)) {
		t.Fatalf("the upstream read %q", text)
	}
	if !isID(r.mode, []byte(text)) {
		return
	}
	list, _ := posterntest.IDStrings([]byte(text)[len(idHead([]byte(text))):])
	list = append(list, "") // the value that is still to come
	if _, found := posterntest.WithoutForbidden(list); found {
		t.Fatalf("the upstream read %q", text)
	}
}

// relaySeeds take the paths that matter.
var relaySeeds = []struct {
	client, script string
	mode           byte
}{
	{"a NOOP\r\nb CAPABILITY\r\nc LOGIN u p\r\nd SELECT INBOX\r\ne STARTTLS\r\n", "\x00\x04", 0},
	{"a LOGIN {1}\r\nu {1}\r\np\r\nb NOOP\r\nraw \x00\r\xff", "", 0},
	{"a LOGIN {1+}\r\nu {0+}\r\n\r\nb X\r\n", "\x05", 0},
	{"a LOGIN {1}\r\nb NOOP\r\n", "\x01\x01", 0},
	{"a AUTHENTICATE PLAIN\r\nAGEAYg==\r\nb NOOP\r\n", "\x03", 0},
	{"a AUTHENTICATE PLAIN =\r\n*\r\na LOGIN u p\r\nc X\r\n", "\x03\x02\x01", 0},
	{"a STARTTLS\r\nb xclient ADDR=1.2.3.4\r\nc COMPRESS DEFLATE\r\nd NOOP\r\n", "", 0},
	{"a COMPRESS {3}\r\nb NOOP\r\n", "", 0},
	{"a ID (\"x-originating-ip\" \"1.2.3.4\" \"name\" \"x\")\r\nb ID NIL\r\nc LOGIN u p\r\n", "", 0},
	{"a ID ({16}\r\nx-originating-ip {7}\r\n1.2.3.4 \"a\" \"b\")\r\nb LOGIN u p\r\n", "", 0},
	{"a ID (\"x-session-id\" {7}\r\n1.2.3.4 \"a\" {1+}\r\nb)\r\nb LOGIN u p\r\n", "", 0},
	{"a ID (\"x-session-id\" {7}\r\nb NOOP\r\n", "\x01\x01", 0},
	{"a ID (\"a\" {3}\r\nb\r\n \"c\" NIL)\r\n\r\nb LOGIN \"u {5}\r\n", "", 0},
	{"a LOGIN \"u\\\" {5}\" p\r\nb XCLIENT\r\n", "\x01", 0},
	{"a X {3+}\r\nb Y\r\n", "", 0},
	{"a LOGIN u{11+}\r\nb XCLIENT a\r\nc NOOP\r\n", "\x01\x01", fuzzStrict},
	{"a LOGIN \"u {11+}\r\nb XCLIENT a\r\nc NOOP\r\n", "\x01\x01", fuzzStrict},
	{"a LOGIN \"u \\\" {9}\" {11+}\r\nb XCLIENT a p\r\nc NOOP\r\n", "\x01\x01", fuzzStrict},
	{"a LOGIN {8+}\r\nb\r\nX Y\r\n\r\n", "", 0},
	{"a LOGIN {9+}\r\nb\r\nX\x00Y\r\n\r\n", "", 0}, {"a LOGIN u p {9+}\r\nb XCLIENT x\r\n", "\x01\x01", fuzzDeaf},
	{"a LOGIN {20+}\r\nu\r\nb XCLIENT a=1.2.3 p\r\n", "\x01\x01", fuzzDeaf}, {"a ID (\"name\" {0+}\r\nb ID (\"x-session-id\" \"y\")\r\n", "\x01\x01", fuzzDeaf},
	{"a ID\r\nb ID (\"name\")\r\nc ID \"NIL\"\r\nd FOO(\r\ne  NOOP\r\nf\r\nGET /\r\ng LOGIN u p\r\nh X\r\n", "", 0}, {"a FOO( {3+}\r\nb X\r\n", "", 0},
	{"a NOOP\r\nb LOGIN u p\r\nc X\r\n", "* BAD what\r\n\xffb OK in\r\n\xffX", fuzzRaw}, {"a NOOP\r\nb NOOP\r\n", "BAD\r\n\xffNO no\r\na OK late\r\n\xff", fuzzRaw},
	{"a LOGIN u p\r\nb NOOP\r\nc X\r\n", "* NO wait\r\n\xffa OK in\r\nb OK\r\n\xffX", fuzzRaw}, {"a NOOP\r\na LOGIN u p\r\n", "* BAD\r\n\xffa OK\r\n\xff", fuzzRaw},
	{"AUTH NTLM\r\nSTLS\r\nxclient x\r\nAAAA\r\nSTAT\r\n", "+OK\r\n\xff+OK in\r\n\xff", fuzzRaw | fuzzPOP3}, {"CAPA\r\nAUTH\r\nHELP\r\nUSER u\r\n", "+OK\r\n\xff+OK\r\n\xff+OK\r\nUSER\r\n.\r\n\xff+OK\r\n", fuzzRaw | fuzzPOP3},
	{"\r\nFOO(\r\n\tx\r\nPASS p\r\nSTAT\r\n", "", fuzzPOP3},
	{"a LOGIN u p\rb STARTTLS\r\n", "", 0}, {"a NOOP\nb STARTTLS\r\n", "", 0}, {"GET / HTTP/1.1\r\n\r\n", "\x02", 0},
	{"a LOGIN u {99999999999999999999}\r\n", "", 0}, {" x\r\n", "", 0}, {"a LOGOUT\r\n", "\x07", 0}, {"a LOGIN u", "", 0},
	{"USER u\r\nPASS p\r\nSTAT\r\nSTLS\r\n", "", fuzzPOP3},
	{"CAPA\r\nAUTH\r\nSTLS\r\nxclient a\r\nPASS\r\nAUTH PLAIN\r\nAGEAYg==\r\nRETR 1\r\n", "\x00\x00\x01\x03\x00", fuzzPOP3},
	{"APOP u d\r\n\x00\x01\n", "", fuzzPOP3}, {"USER u\nPASS p\r\n", "", fuzzPOP3}, {" USER u\r\n", "", fuzzPOP3}, {"USER a{5}\r\nQUIT\r\n", "\x02\x07", fuzzPOP3},
	{"a NOOP\r\nb LOGIN u p\r\nc STARTTLS\r\n", "* CAPABILITY STARTTLS\r\na OK\r\n\xffb OK [CAPABILITY LOGINDISABLED] in\r\n\xff* 1 FETCH {8}\r\nSTARTTLS\r\n", fuzzRaw},
	{"a NOOP\r\nb NOOP\r\n", "* 1 FETCH {9}\r\nSTARTTLS\r\n)\r\na OK\r\n\xff\r\nb OK\r\n", fuzzRaw},
	{"a NOOP\r\n", "b OK\r\n", fuzzRaw}, {"a NOOP\r\n", "* BYE x\r\n", fuzzRaw}, {"a NOOP\r\n", "+ x\r\n+ y\r\na OK {3}\r\n", fuzzRaw},
	{"CAPA\r\nPASS x\r\nLIST\r\n", "+OK\r\nSTLS\r\nSASL A-PLUS\r\n.\r\n\xff+OK\r\n\xff+OK\r\nSTLS\r\n.\r\n", fuzzRaw | fuzzPOP3},
	{"USER x\r\n", "hello\r\n", fuzzRaw | fuzzPOP3}, {"USER x\r\n", "+OK\r\n-ERR timeout\r\n", fuzzRaw | fuzzPOP3},
}
