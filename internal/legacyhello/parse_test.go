package legacyhello

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// Of a hello that crypto/tls takes, Parse says the same, however it is cut.
func TestParseAgreesWithCryptoTLS(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	hellos := legacyHellos(t)
	for _, version := range []uint16{0x0303, 0x0304} {
		hellos = append(hellos, namedHello{"Go", goHello(version)}, namedHello{"typical", typicalHello(version, nil)})
	}
	for _, h := range hellos {
		if !check(t, h.bytes) || !check(t, posterntest.Fragment(h.bytes, 1+r.IntN(40))) {
			t.Errorf("%s: not taken", h.name)
		}
	}
	taken := 0
	const tried = 10000
	for range tried {
		if check(t, mutate(r, hellos)) {
			taken++
		}
	}
	if taken < tried/4 || taken > tried*9/10 {
		t.Errorf("crypto/tls takes %d of %d, which says too little", taken, tried)
	}
}

// Wherever a hello ends, what it offers up to there is known.
func TestParseOfTheBeginning(t *testing.T) {
	b := typicalHello(0x0304, func(s *hello.Spec) { s.ServerName = "mail.example.org." })
	whole, ok := Parse(b)
	if !ok || whole.ServerName != "mail.example.org" || whole.Version() != policy.TLS13 {
		t.Fatalf("%+v, %v", whole, ok)
	}
	suites := false
	for n := range b {
		h, ok := Parse(b[:n])
		if suites = suites || ok; ok != suites {
			t.Fatalf("%d bytes of %d say less than fewer", n, len(b))
		}
		if ok && !slices.Equal(h.CipherSuites, whole.CipherSuites) || len(h.Extensions) > len(whole.Extensions) {
			t.Errorf("%d bytes: %+v", n, h)
		}
		if want := policy.TLS12; n >= 11 && Version(b[:n]) != want || n < 11 && Version(b[:n]) != policy.NoVersion {
			t.Errorf("%d bytes name version %s", n, Version(b[:n]))
		}
	}
	if !suites {
		t.Error("no beginning says anything")
	}
}

// Only what is one old hello and nothing else is rejected without crypto/tls.
func TestASoleOldHello(t *testing.T) {
	plain := typicalHello(0x0301, nil)
	at := func(i int, to ...byte) []byte {
		b := bytes.Clone(plain)
		copy(b[i:], to)
		return b
	}
	framed := func(message []byte) []byte { return record(3, 1, message) }
	for name, b := range map[string][]byte{
		"": plain, "TLS 1.1": at(9, 3, 2), "SSL 3.0": at(9, 3, 0), "SSL 2.0": at(9, 0, 2), "in a record of SSL 3.0": at(1, 3, 0),
		"a name with a dot at its end": typicalHello(0x0301, func(s *hello.Spec) { s.ServerName = "localhost." }),
	} {
		if !SoleOld(b) {
			t.Errorf("%q is none", name)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a header alone": plain[:5], "half a hello": plain[:60], "all but a byte": plain[:len(plain)-1],
		"a byte behind it": append(bytes.Clone(plain), 0), "an alert behind it": append(bytes.Clone(plain), 21, 3, 1, 0, 2, 2, 40),
		"two records": posterntest.Fragment(plain, 50), "two in a record": framed(append(bytes.Clone(plain[5:]), plain[5:]...)),
		"a byte behind the message": framed(append(bytes.Clone(plain[5:]), 0)),
		"an alert":                  at(0, 21), "application data": at(0, 23), "a record of version 2": at(1, 2), "another message": at(5, 2),
		"a message of 64 KB and more": at(6, 1), "TLS 1.2": at(9, 3, 3), "TLS 1.3": at(9, 3, 4), "from the future": at(9, 4, 0),
		"no more than a length": framed([]byte{1, 0, 0, 0}),
	} {
		if SoleOld(b) {
			t.Errorf("%s is one", name)
		}
	}
}

// record is one of the handshake, message one of its messages.
func record(major, minor byte, message []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{hello.RecordHandshake, major, minor}, uint16(len(message)))
	return append(b, message...)
}

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}
