package hello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"postern/internal/posterntest"
)

// seen is what crypto/tls's server makes of a first flight, and its answer.
type seen struct {
	info   *tls.ClientHelloInfo
	answer Answer
}

// serve lets the server of crypto/tls read a first flight and returns what it
// saw and said.
func serve(t *testing.T, flight []byte, config *tls.Config) seen {
	t.Helper()
	client, server := tcpPair(t)
	var s seen
	config = config.Clone()
	config.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		s.info = info
		return nil, nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Server(server, config).Handshake()
		server.(*net.TCPConn).CloseWrite()
	}()
	go client.Write(flight)
	f, err := ReadFlight(client)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	<-done
	s.answer = f.Answer
	return s
}

func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	return client, server
}

func sameInfo(t *testing.T, info *tls.ClientHelloInfo, s Spec) {
	t.Helper()
	if info == nil {
		t.Fatal("crypto/tls could not read the hello")
	}
	check := func(what string, same bool, got, want any) {
		if !same {
			t.Errorf("%s: crypto/tls saw %v, want %v", what, got, want)
		}
	}
	check("suites", slices.Equal(info.CipherSuites, s.CipherSuites), info.CipherSuites, s.CipherSuites)
	check("name", info.ServerName == s.ServerName, info.ServerName, s.ServerName)
	check("groups", slices.Equal(info.SupportedCurves, s.Groups), info.SupportedCurves, s.Groups)
	check("schemes", slices.Equal(info.SignatureSchemes, s.SignatureSchemes), info.SignatureSchemes, s.SignatureSchemes)
	if len(s.SupportedVersions) > 0 {
		check("versions", slices.Equal(info.SupportedVersions, s.SupportedVersions), info.SupportedVersions, s.SupportedVersions)
	} else if s.Version > VersionSSL30 {
		check("version", slices.Max(info.SupportedVersions) == s.Version, info.SupportedVersions, s.Version)
	}
	var extra []uint16
	for _, e := range s.Extra {
		extra = append(extra, e.Type)
		if !slices.Contains(info.Extensions, e.Type) {
			t.Errorf("extensions %v lack %v", info.Extensions, extra)
		}
	}
}

func TestCryptoTLSSeesWhatTheSpecSays(t *testing.T) {
	full := Spec{
		Version:           tls.VersionTLS12,
		CipherSuites:      []uint16{0x1301, 0xc02f, 0x9999, tls.TLS_FALLBACK_SCSV},
		SessionID:         []byte{1, 2, 3},
		ServerName:        "mail.example.org",
		Groups:            []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP521},
		SignatureSchemes:  []tls.SignatureScheme{tls.Ed25519, tls.PSSWithSHA512},
		SupportedVersions: []uint16{0x1a1a, tls.VersionTLS12, tls.VersionTLS11},
		Extra:             []Extension{{16, posterntest.ALPN("imap", "http/1.1")}, {0x2a2a, nil}, {23, nil}, {0xfe00, []byte("x")}},
	}
	bare := Spec{Version: tls.VersionTLS10, CipherSuites: []uint16{0x2f}, NoExtensions: true}
	specs := map[string]Spec{
		"full": full, "bare": bare,
		"ssl3":    Typical(VersionSSL30),
		"tls 1.0": Typical(tls.VersionTLS10), "tls 1.1": Typical(tls.VersionTLS11),
		"tls 1.2": Typical(tls.VersionTLS12), "tls 1.3": Typical(tls.VersionTLS13),
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			hello := ClientHello(spec)
			for _, flight := range [][]byte{hello, posterntest.Fragment(hello, 1), posterntest.Fragment(hello, 100)} {
				sameInfo(t, serve(t, flight, &tls.Config{}).info, spec)
			}
		})
	}
}

func TestNoExtensionsLeavesTheBlockOut(t *testing.T) {
	spec := Typical(tls.VersionTLS12)
	spec.NoExtensions = true
	got := serve(t, ClientHello(spec), &tls.Config{}).info
	if len(got.Extensions) != 0 || len(got.SupportedCurves) != 0 {
		t.Errorf("extensions %v, groups %v", got.Extensions, got.SupportedCurves)
	}
}

func TestRandomsDiffer(t *testing.T) {
	if bytes.Equal(ClientHello(Spec{}), ClientHello(Spec{})) {
		t.Error("two hellos with the same random")
	}
}

func TestALongMessageTakesSeveralRecords(t *testing.T) {
	for _, size := range []int{16384, 16384 + 1, 65536} {
		spec := Typical(tls.VersionTLS12)
		spec.Extra = []Extension{{21, posterntest.Padding(ClientHello(spec), size)}}
		hello := ClientHello(spec)
		if got := message(t, hello); len(got) != size {
			t.Errorf("message of %d bytes, want %d", len(got), size)
		}
		sameInfo(t, serve(t, hello, &tls.Config{}).info, spec)
	}
}

// message joins the payloads of all records.
func message(t *testing.T, flight []byte) []byte {
	t.Helper()
	var m []byte
	for len(flight) > 0 {
		n := int(binary.BigEndian.Uint16(flight[3:]))
		if flight[0] != RecordHandshake || n > maxRecord {
			t.Fatalf("record header % x", flight[:5])
		}
		m = append(m, flight[5:5+n]...)
		flight = flight[5+n:]
	}
	return m
}

func TestFragmentKeepsTheMessageAndTheVersion(t *testing.T) {
	hello := ClientHello(Spec{Version: tls.VersionTLS12, Extra: []Extension{{21, make([]byte, 20000)}}})
	for _, n := range []int{1, 7, 1000, 1 << 20} {
		cut := posterntest.Fragment(hello, n)
		if !bytes.Equal(message(t, cut), message(t, hello)) {
			t.Errorf("cut by %d the message differs", n)
		}
		if !bytes.Equal(cut[:3], []byte{22, 3, 1}) || int(binary.BigEndian.Uint16(cut[3:])) != min(n, maxRecord) {
			t.Errorf("cut by %d the first header is % x", n, cut[:5])
		}
	}
}

// TestSSLv2Format pins what crypto/tls, and every server that is to know
// these hellos, looks at.
func TestSSLv2Format(t *testing.T) {
	for name, c := range map[string]struct {
		hello   []byte
		first   byte
		version uint16
	}{
		"real":    {SSLv2(), 0x80, 0x0002},
		"tls 1.0": {posterntest.SSLv2Offering(tls.VersionTLS10), 0x80, 0x0301},
		"large":   {posterntest.SSLv2Large(tls.VersionTLS12), 0x81, 0x0303},
	} {
		h := c.hello
		if h[0] != c.first || int(binary.BigEndian.Uint16(h)&0x7fff) != len(h)-2 || h[2] != 1 {
			t.Errorf("%s: header % x for %d bytes", name, h[:3], len(h))
		}
		if got := binary.BigEndian.Uint16(h[3:]); got != c.version {
			t.Errorf("%s: version %#04x, want %#04x", name, got, c.version)
		}
		lengths := 0
		for _, at := range []int{5, 7, 9} {
			lengths += int(binary.BigEndian.Uint16(h[at:]))
		}
		if lengths != len(h)-11 {
			t.Errorf("%s: the lists add up to %d, want %d", name, lengths, len(h)-11)
		}
	}
	client, server := tcpPair(t)
	client.Write(SSLv2())
	var header tls.RecordHeaderError
	if err := tls.Server(server, &tls.Config{}).Handshake(); !errors.As(err, &header) {
		t.Errorf("crypto/tls says %v, want a record header error", err)
	}
	if a, err := ReadFlight(client); err != nil || a.Kind != Alert || a.Alert != 70 {
		t.Errorf("answer %+v, %v", a, err)
	}
}

func TestTooLongAListPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic for a session ID of 256 bytes")
		}
	}()
	ClientHello(Spec{SessionID: make([]byte, 256)})
}

func FuzzReadFlight(f *testing.F) {
	f.Add([]byte{21, 3, 1, 0, 2, 2, 70})
	f.Add([]byte("* BYE go\r\n"))
	f.Add([]byte{0x80, 11, 4, 0, 1, 0, 2, 0, 0, 0, 3})
	f.Add(posterntest.Fragment(serverHello(0x0303, 0xc02f, 0x0304), 9))
	for _, rest := range []string{
		"", "\x16\x03\x03\x00\x04\x0e\x00\x00\x00", "\x15\x03\x03\x00\x02\x02\x28", "\x16\x03\x03\x00\x0b\x0b\x00\x00\x07\x00\x00\x04\x00\x00\x01c",
		"\x16\x03\x03\x00\x0b\x0c\x00\x00\x07\x03\x00\x1d\x01p\x04\x03",
	} {
		f.Add(append(serverHello(0x0303, 0xc02f, 0), rest...))
		f.Add(append(serverHello(0x0303, 0x0033, 0), rest...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ReadFlight(bytes.NewReader(b))
		if err != nil {
			return
		}
		if (a.Kind == Closed) != (len(b) == 0) {
			t.Errorf("%q is %v", b, a.Kind)
		}
		if len(a.Text) > maxText || (a.Text != "" && a.Kind != Text) {
			t.Errorf("%v with text %q", a.Kind, a.Text)
		}
		if a.Prime > 8*len(b) || len(a.Certificates) > len(b) || a.Kind == "" {
			t.Errorf("%q is %+v", b, a)
		}
	})
}

// serverHello is a ServerHello record; selected is left out where it is 0.
func serverHello(version, suite, selected uint16) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typeServerHello)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(version)
		b.AddBytes(make([]byte, 32))
		b.AddUint8LengthPrefixed(raw([]byte{9, 9}))
		b.AddUint16(suite)
		b.AddUint8(0)
		if selected != 0 {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { addExtension(b, ExtSupportedVersions, list([]uint16{selected})) })
		}
	})
	return records(b.BytesOrPanic(), tls.VersionTLS12)
}

// flight is a ServerHello and the ServerHelloDone.
func flight(version, suite uint16) []byte {
	return append(serverHello(version, suite, 0), 22, 3, 3, 0, 4, typeServerHelloDone, 0, 0, 0)
}

func TestReadFlight(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  Answer
	}{
		"alert":        {[]byte{21, 3, 1, 0, 2, 2, 70}, Answer{Kind: Alert, Level: 2, Alert: 70}},
		"ssl3 alert":   {[]byte{21, 3, 0, 0, 2, 2, 40}, Answer{Kind: Alert, Level: 2, Alert: 40}},
		"tls 1.0":      {flight(0x0301, 0x2f), Answer{Kind: ServerHello, Version: 0x0301, CipherSuite: 0x2f}},
		"tls 1.3":      {serverHello(0x0303, 0x1301, 0x0304), Answer{Kind: ServerHello, Version: 0x0304, CipherSuite: 0x1301}},
		"in pieces":    {posterntest.Fragment(flight(0x0303, 0xc02f), 3), Answer{Kind: ServerHello, Version: 0x0303, CipherSuite: 0xc02f}},
		"ssl2":         {[]byte{0x80, 11, 4, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0}, Answer{Kind: SSLv2Server, Version: 2}},
		"line":         {[]byte("* BYE not here\r\nmore"), Answer{Kind: Text, Text: "* BYE not here"}},
		"half a line":  {[]byte("-ERR"), Answer{Kind: Text, Text: "-ERR"}},
		"nothing":      {nil, Answer{Kind: Closed}},
		"endless line": {bytes.Repeat([]byte("x"), 5000), Answer{Kind: Text, Text: string(bytes.Repeat([]byte("x"), maxText))}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ReadFlight(bytes.NewReader(c.bytes)); err != nil || got.Answer != c.want {
				t.Errorf("answer %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestReadFlightErrors(t *testing.T) {
	hello := serverHello(0x0303, 0x1301, 0x0304)
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"half an alert":       {[]byte{21, 3, 1, 0, 2, 2}, io.ErrUnexpectedEOF},
		"header alone":        {hello[:5], io.ErrUnexpectedEOF},
		"half a hello":        {hello[:40], io.ErrUnexpectedEOF},
		"alert amid a hello":  {append(posterntest.Fragment(hello, 20)[:25], 21, 3, 1, 0, 2, 2, 40), errMalformed},
		"another message":     {[]byte{22, 3, 3, 0, 4, 11, 0, 0, 0}, errMalformed},
		"short hello":         {[]byte{22, 3, 3, 0, 5, 2, 0, 0, 1, 3}, errMalformed},
		"control characters":  {[]byte("\x01\x02\x03"), errMalformed},
		"empty record":        {[]byte{22, 3, 3, 0, 0}, errMalformed},
		"not the record type": {[]byte{22, 9, 9, 0, 1, 2}, errMalformed},
		"not a server hello":  {[]byte{0x80, 11, 7, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0}, errMalformed},
	} {
		if got, err := ReadFlight(bytes.NewReader(c.bytes)); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestReadFlightPassesResetsOn(t *testing.T) {
	client, server := tcpPair(t)
	server.(*net.TCPConn).SetLinger(0)
	server.Close()
	if a, err := ReadFlight(client); err == nil {
		t.Errorf("a reset is %+v, want an error", a)
	}
}
