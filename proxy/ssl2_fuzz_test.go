package proxy

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"postern/internal/hello"
	"postern/policy"
)

// FuzzSSL2Hello parses any bytes, and reads them as a connection would.
func FuzzSSL2Hello(f *testing.F) {
	for _, b := range [][]byte{
		hello.SSLv2(), hello.SSLv2Offering(0x0300), hello.SSLv2Offering(0x0301), hello.SSLv2Offering(0x0303), hello.SSLv2Large(0x0302),
		ssl2Bytes(0x0304, []byte{0, 0, 1}, []byte{1}, nil), ssl2Bytes(2, []byte{1, 0, 0x80}, nil, []byte{9}), {0x80, 9, 1}, {}, {0x80},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseSSL2Hello(b)
		if !ok {
			return
		}
		specs := int(binary.BigEndian.Uint16(b[5:]))
		if !h.SSL2Format || len(h.Versions) == 0 || 3*(len(h.CipherSuites)+len(h.SSL2Ciphers)) != specs {
			t.Fatalf("% x: %+v", b, h)
		}
		if h.Version() == policy.TLS13 || h.Versions[0] > binary.BigEndian.Uint16(b[3:]) {
			t.Fatalf("% x offers %v", b, h.Versions)
		}
		verdict := policy.New(policy.FloorTLS12Compat, policy.Observe).At(time.Now()).Decide(&h, policy.ConnInfo{Keys: policy.RSA}, time.Time{}, 0)
		if verdict.Serve != policy.Enforce || h.Version() != policy.NoVersion && !verdict.Legacy() {
			t.Fatalf("% x: %+v", b, verdict)
		}
		again := ssl2Bytes(binary.BigEndian.Uint16(b[3:]), b[11:11+specs], nil, make([]byte, 16))
		if specs < 256 {
			if h2, ok := parseSSL2Hello(again); !ok || !slices.Equal(h2.CipherSuites, h.CipherSuites) || !slices.Equal(h2.SSL2Ciphers, h.SSL2Ciphers) {
				t.Fatalf("% x: %+v, built again %+v", b, h, h2)
			}
		}
	})
}
