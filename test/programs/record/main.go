// Command record is the mail server that test/programs/record/run drives mail programs
// against. It lets everybody in, and writes down each dialogue up to its login, with the
// account, the password and what holds them replaced.
package main

import (
	"crypto/tls"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/legacyhello"
)

// server is one kind of mail server, on an address of its own.
type server struct {
	name, address string
	capabilities  string // that the greeting has, in IMAP
	timestamp     string // that it has in POP3
	mechanisms    []string
}

var servers = []server{
	{name: "full", address: "127.0.0.11", capabilities: "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN", mechanisms: []string{"PLAIN"}},
	{name: "bare", address: "127.0.0.12"},
	{name: "sasl", address: "127.0.0.14", mechanisms: []string{"CRAM-MD5", "LOGIN", "PLAIN"}},
	{name: "apop", address: "127.0.0.13", timestamp: " <4711.1@mail.example.org>"},
}

var ports = map[string]int{"imaps": 993, "imap": 143, "pop3s": 995, "pop3": 110}

// recorder is what all sessions share.
type recorder struct {
	dir      string
	tls      *tls.Config
	replacer *strings.Replacer
	sessions atomic.Int64
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("record: ")
	dir := flag.String("dir", ".", "where the sessions are written")
	certs := flag.String("certs", "", "`FILE,FILE` with a certificate and its key each")
	accounts := flag.String("accounts", "", "`TEXT,TEXT` that is written as ACCOUNT, the longest first")
	passwords := flag.String("passwords", "", "`TEXT,TEXT` that is written as PASSWORD")
	hosts := flag.String("hosts", "", "`TEXT,TEXT` that is written as HOST")
	flag.Parse()

	r := &recorder{dir: *dir, tls: &tls.Config{MinVersion: tls.VersionTLS10}}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, suite := range list {
			r.tls.CipherSuites = append(r.tls.CipherSuites, suite.ID)
		}
	}
	for file := range strings.SplitSeq(*certs, ",") {
		pair, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			log.Fatal(err)
		}
		r.tls.Certificates = append(r.tls.Certificates, pair)
	}
	var words []string
	for _, list := range [][2]string{{"ACCOUNT", *accounts}, {"PASSWORD", *passwords}, {"HOST", *hosts}} {
		for text := range strings.SplitSeq(list[1], ",") {
			if text != "" {
				words = append(words, text, list[0])
			}
		}
	}
	r.replacer = strings.NewReplacer(words...)
	for _, srv := range servers {
		for listener, port := range ports {
			l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", srv.address, port))
			if err != nil {
				log.Fatal(err)
			}
			go r.serve(l, listener, srv)
		}
	}
	fmt.Println("ready")
	select {}
}

func (r *recorder) serve(l net.Listener, listener string, srv server) {
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		s := &session{recorder: r, server: srv, listener: listener, conn: conn}
		go s.run()
	}
}

// hello keeps what it reads, for the ClientHello at its beginning.
type hello struct {
	net.Conn
	bytes []byte
}

func (h *hello) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if len(h.bytes) < 16<<10 {
		h.bytes = append(h.bytes, b[:n]...)
	}
	return n, err
}

// records returns the records that hold the ClientHello, and no more.
func (h *hello) records() []byte {
	message := 4
	for end, held := 0, 0; end+5 <= len(h.bytes) && h.bytes[end] == 22; {
		size := int(h.bytes[end+3])<<8 | int(h.bytes[end+4])
		if end == 0 && len(h.bytes) >= 9 {
			message += int(h.bytes[6])<<16 | int(h.bytes[7])<<8 | int(h.bytes[8])
		}
		held += size
		end += 5 + size
		if held >= message && end <= len(h.bytes) {
			return h.bytes[:end]
		}
	}
	return h.bytes
}

func (s *session) startTLS() bool {
	s.line("TLS")
	s.hello = &hello{Conn: s.conn}
	inside := tls.Server(s.hello, s.recorder.tls)
	err := inside.Handshake()
	s.in, s.out = newLines(inside), inside
	return err == nil
}

// write writes the session to a file of its own, once.
func (s *session) write() {
	if s.written {
		return
	}
	s.written = true
	var text strings.Builder
	fmt.Fprintf(&text, "session: %s %s\n", s.listener, s.server.name)
	if s.hello != nil {
		if parsed, ok := legacyhello.Parse(s.hello.records()); ok {
			fmt.Fprintf(&text, "ja4: %s\n", parsed.JA4())
		}
		fmt.Fprintf(&text, "hello: %s\n", hex.EncodeToString(s.hello.records()))
	}
	for _, line := range s.lines {
		fmt.Fprintln(&text, line)
	}
	name := fmt.Sprintf("%06d", s.recorder.sessions.Add(1))
	file := filepath.Join(s.recorder.dir, name)
	if err := os.WriteFile(file+".part", []byte(text.String()), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename(file+".part", file+".session"); err != nil {
		log.Fatal(err)
	}
}

const patience = 60 * time.Second
