package policy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"postern/policy"
)

// alert is a TLS alert as it stands on the wire (RFC 8446, Section 6).
type alert byte

const (
	noAlert                    alert = 0 // close_notify, which is never an answer to a hello
	alertHandshakeFailure      alert = 40
	alertIllegalParameter      alert = 47
	alertDecodeError           alert = 50
	alertProtocolVersion       alert = 70
	alertInappropriateFallback alert = 86
	alertMissingExtension      alert = 109
	alertUnsupportedExtension  alert = 110
	alertNoApplicationProtocol alert = 120
)

// proxy asks crypto/tls about hellos in the way that the product does.
type proxy struct {
	snapshot policy.Snapshot
	keys     policy.KeyTypes
	// lenient answers with the lenient configuration whatever the verdict is.
	lenient bool
}

// answer is what came of one hello.
type answer struct {
	judged  bool // the hook was called
	hello   policy.Hello
	verdict policy.Verdict

	served bool // a ServerHello was sent, and no alert behind it
	alert  alert
}

func (a answer) String() string {
	if a.served {
		return "a ServerHello"
	}
	return fmt.Sprintf("alert %d", a.alert)
}

// ask lets a tls.Server answer the hello. A HelloRetryRequest is followed, so
// that the answer is the last word on it.
func (g proxy) ask(t testing.TB, o *offer) answer {
	t.Helper()
	var a answer
	conn := &client{offer: o}
	conn.in.Write(o.record(tls.VersionTLS10, o.shares))
	strict, lenient := g.snapshot.Floor.TLSConfig(), policy.LenientTLSConfig()
	strict.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		a.judged = true
		a.hello = policy.FromClientHello(chi)
		a.verdict = g.snapshot.Decide(&a.hello, policy.ConnInfo{Keys: g.keys}, time.Time{}, 0)
		c := strict
		if g.lenient || a.verdict.Serve != policy.Enforce {
			c = lenient
		}
		if a.verdict.RSAKeyExchange {
			if c = policy.RSAKeyExchange(c); c == nil {
				t.Error("RSA key exchange alone, where there is none")
			}
		}
		return c, nil
	}
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		k := a.verdict.Key
		if g.lenient {
			k = g.snapshot.Floor.PickKey(&a.hello, g.keys, true)
		}
		if k&^g.keys != 0 {
			t.Errorf("picked key %05b of %05b", k, g.keys)
		}
		if k == 0 {
			k = g.keys & -g.keys // no key will do: any must fail
		}
		return certificates()[k], nil
	}
	for _, c := range []*tls.Config{strict, lenient} {
		c.GetCertificate = certificate
		c.NextProtos = []string{"imap"}
	}
	err := tls.Server(conn, strict).Handshake()
	if err == nil {
		t.Fatal("a handshake was completed without a client")
	}
	if conn.served == (conn.alert != noAlert) {
		t.Fatalf("neither served nor refused, or both: alert %d, %v", conn.alert, err)
	}
	a.served, a.alert = conn.served, conn.alert
	return a
}

// client plays the hello, records the alert, and leaves at the ServerHello.
type client struct {
	net.Conn // no other method is called

	offer    *offer
	in       bytes.Buffer
	answered bool // the next handshake record is not the first since a hello
	served   bool
	alert    alert
}

// helloRetryRequest is the random of a ServerHello that is none (RFC 8446,
// Section 4.1.3).
var helloRetryRequest = sha256.Sum256([]byte("HelloRetryRequest"))

func (c *client) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *client) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := 5 + int(binary.BigEndian.Uint16(b[3:]))
		c.record(b[0], b[5:end])
		b = b[end:]
	}
	if c.served {
		return 0, io.ErrClosedPipe
	}
	return n, nil
}

func (c *client) record(kind byte, body []byte) {
	switch {
	case kind == 21 && len(body) == 2 && body[0] == 2:
		// In TLS 1.2 a signature is missed behind the ServerHello.
		c.served, c.alert = false, alert(body[1])
	case kind == 22 && !c.answered && body[0] == 2:
		c.answered = true
		if !bytes.Equal(body[6:38], helloRetryRequest[:]) {
			c.served = true
			return
		}
		c.answered = false
		c.in.Write(c.offer.record(tls.VersionTLS12, []uint16{retryGroup(body)}))
	}
}

// retryGroup is the group for which a HelloRetryRequest wants a key.
func retryGroup(message []byte) uint16 {
	extensions := message[4+2+32:]
	extensions = extensions[1+int(extensions[0])+2+1+2:]
	for len(extensions) > 0 {
		data := extensions[4 : 4+int(binary.BigEndian.Uint16(extensions[2:]))]
		if binary.BigEndian.Uint16(extensions) == 51 {
			return binary.BigEndian.Uint16(data)
		}
		extensions = extensions[4+len(data):]
	}
	return 0
}

// certificates has one for every type of key. What is in them does not matter:
// nobody reads them here.
var certificates = sync.OnceValue(func() map[policy.KeyTypes]*tls.Certificate {
	all := make(map[policy.KeyTypes]*tls.Certificate)
	add := func(k policy.KeyTypes, key any, err error) {
		if err != nil {
			panic(err)
		}
		all[k] = &tls.Certificate{Certificate: [][]byte{{0x30, 0}}, PrivateKey: key}
	}
	for k, curve := range map[policy.KeyTypes]elliptic.Curve{
		policy.ECDSAP256: elliptic.P256(), policy.ECDSAP384: elliptic.P384(), policy.ECDSAP521: elliptic.P521(),
	} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(k, key, err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	add(policy.Ed25519, ed, err)
	// The least that can sign by every scheme (PSS with SHA-512 takes 130
	// bytes), for there are many signatures to make.
	rs, err := rsa.GenerateKey(rand.Reader, 1088)
	add(policy.RSA, rs, err)
	return all
})
