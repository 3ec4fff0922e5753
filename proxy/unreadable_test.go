package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/policy"
)

// unreadable are hellos in a form that crypto/tls does not take, by what is wrong with
// them. Each offers what that version did.
func unreadable(version uint16) map[string][]byte {
	all := make(map[string][]byte)
	for name, extensions := range map[string][]hello.Extension{
		"extension twice":                {{Type: 35}, {Type: 35}},
		"extended_master_secret, data":   {{Type: 23, Data: []byte{0}}},
		"SCT with data":                  {{Type: 18, Data: []byte{0, 0}}},
		"status_request without lists":   {{Type: 5, Data: []byte{1}}},
		"status_request, empty":          {{Type: 5}},
		"no server name":                 {{Type: 0, Data: []byte{0, 0}}},
		"server_name, empty":             {{Type: 0}},
		"empty server name":              {{Type: 0, Data: []byte{0, 3, 0, 0, 0}}},
		"two server names":               {{Type: 0, Data: []byte{0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b'}}},
		"ALPN without protocols":         {{Type: 16, Data: []byte{0, 0}}},
		"ALPN with an empty one":         {{Type: 16, Data: []byte{0, 1, 0}}},
		"cookie, empty":                  {{Type: 44}},
		"signature_algorithms_cert, odd": {{Type: 50, Data: []byte{0, 1, 4}}},
		"pre_shared_key not at the end":  {{Type: 41, Data: []byte{0, 0}}, {Type: 35}},
		"list of another length":         {{Type: 50, Data: []byte{0, 4, 4, 1}}},
		"ECH of no kind":                 {{Type: 0xfe0d, Data: []byte{7}}},
	} {
		s := hello.Typical(version)
		s.NoExtensions = false
		s.Extra = extensions
		all[name] = hello.ClientHello(s)
	}
	dot := hello.Typical(version)
	dot.ServerName = "localhost."
	all["name with a dot at its end"] = hello.ClientHello(dot)
	long := hello.Typical(version)
	long.NoExtensions, long.Extra = false, []hello.Extension{{Type: 0xfff0, Data: make([]byte, 60<<10)}}
	long.CipherSuites = append(slices.Clone(long.CipherSuites), make([]uint16, 3000)...)
	all["66 KB"] = hello.ClientHello(long)
	for _, size := range []int{65537, 131396, 131584, 1<<24 - 1} {
		grown := append(all["66 KB"][5:16389:16389], make([]byte, 1000)...) // what comes first is enough
		copy(grown[1:], []byte{byte(size >> 16), byte(size >> 8), byte(size)})
		all[fmt.Sprintf("%d bytes", size)] = append([]byte{22, 3, 1, 0x40, 0}, grown[:1<<14]...)
	}
	return all
}

// What crypto/tls cannot read is counted with the version that it offers, and refused as
// what is in it asks for; and where an old server is, observe passes it through.
func TestAHelloThatCryptoTLSCannotReadIsNotInvisible(t *testing.T) {
	imap, pop3 := stubs(t)
	for _, mode := range policy.Modes {
		without := StartProxy(t, mode, imap.Addr(), pop3.Addr(), nil)
		with := startPassing(t, mode, posterntest.StartRawUpstream(t, func(c net.Conn) {
			c.Read(make([]byte, 1))
			io.WriteString(c, serverHello)
		}).Addr(), nil)
		n := map[*Proxy]int{}
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
			for name, flight := range unreadable(version) {
				for _, g := range []*Proxy{without, with} {
					for _, l := range []Listener{IMAPS, POP3} {
						passed := g == with && mode == policy.Observe && l == IMAPS
						c := g.Dial(t, l)
						if l == POP3 {
							beginTLS(t, c, l)
						}
						go c.Write(flight)
						answer, err := io.ReadAll(c)
						c.Close()
						n[g]++
						h := g.WaitHandshake(t, n[g])
						describe := func(what string, args ...any) {
							t.Errorf("%s, %s, %s on %s, an old server %v: %s %v", name, policy.Version(version), mode, l, g == with, what, args)
						}
						if h.Verdict.Version != policy.Version(version) || h.Hello == nil || !slices.Contains(h.Hello.CipherSuites, hello.Typical(version).CipherSuites[0]) {
							describe("offers", h.Verdict.Version, h.Hello)
						}
						reason, outcome, failure, alert := policy.NotLegacy, Failed, FailMalformed, alertDecodeError
						if name == "ECH of no kind" {
							alert = 47 // illegal_parameter
						}
						if version == tls.VersionTLS10 {
							reason, outcome, failure, alert = policy.ReasonVersion, Rejected, NoFailure, alertProtocolVersion
						}
						if passed {
							outcome, failure = Observed, NoFailure
							if reason == policy.NotLegacy {
								reason = policy.ReasonMalformed
							}
							if string(answer) != serverHello {
								describe("the client was told", answer, err)
							}
						} else if !isAlert(answer) || tls.AlertError(answer[6]) != alert {
							describe("answered", answer, err)
						}
						if h.Outcome != outcome || h.Failure != failure || h.Verdict.Reason != reason {
							describe("ended", h.Outcome, h.Failure, h.Verdict.Reason)
						}
					}
				}
			}
		}
	}
}

// Lengths that contradict each other are nobody's hello: OpenSSL reads it no better.
func TestABrokenHelloOffersNothing(t *testing.T) {
	old := posterntest.StartRawUpstream(t, func(c net.Conn) { io.WriteString(c, serverHello) })
	g := startPassing(t, policy.Observe, old.Addr(), nil)
	sound := hello.ClientHello(hello.Typical(tls.VersionTLS12))
	grown := append(bytes.Clone(sound), 0)
	binary.BigEndian.PutUint16(grown[3:], uint16(len(grown)-5))
	binary.BigEndian.PutUint16(grown[7:], uint16(len(grown)-9))
	beyond := bytes.Clone(sound)
	beyond[len(beyond)-len(hello.Typical(tls.VersionTLS12).SignatureSchemes)*2-3]++ // the last extension's length
	odd := bytes.Clone(sound)
	odd[45]--
	n := 0
	for name, flight := range map[string][]byte{"a byte behind the extensions": grown, "an extension beyond the end": beyond, "suites of odd length": odd} {
		expectRefused(t, g, IMAPS, name, flight, alertDecodeError)
		n++
		if h := g.WaitHandshake(t, n); h.Outcome != Failed || h.Failure != FailMalformed || h.Hello != nil || h.Verdict.Version != policy.NoVersion {
			t.Errorf("%s: %s, %s, %+v", name, h.Outcome, h.Failure, h.Verdict)
		}
	}
	if n := old.Connections(); n > 0 {
		t.Errorf("%d were passed through", n)
	}
}

// RFC 8446, Appendix D.5: a hello with a version field of SSL 3.0 or less is refused, whatever
// its supported_versions say. (The field alone, without the extension, is SSL 3.0's.)
func TestAVersionFieldOfSSL3IsRefusedBesideSupportedVersions(t *testing.T) {
	old := posterntest.StartRawUpstream(t, func(c net.Conn) { io.WriteString(c, serverHello) })
	for _, mode := range policy.Modes {
		g := startPassing(t, mode, old.Addr(), nil)
		n := 0
		for _, field := range []uint16{0x0300, 0x02ff, 0x0200, 0x0002, 0} {
			for offered, outcome := range map[uint16]Outcome{tls.VersionTLS13: Failed, tls.VersionTLS12: Failed, tls.VersionTLS10: Rejected} {
				s := hello.Typical(tls.VersionTLS13)
				s.SupportedVersions = []uint16{offered}
				s.CipherSuites = append(s.CipherSuites, tls.TLS_RSA_WITH_AES_128_CBC_SHA)
				whole := hello.ClientHello(s)
				binary.BigEndian.PutUint16(whole[9:], field)
				for _, flight := range [][]byte{whole, posterntest.Fragment(whole, 3)} {
					c := g.Dial(t, IMAPS)
					c.Write(flight)
					if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, []byte{21, 3, 0, 0, 2, 2, 70}) {
						t.Errorf("%s, %04x and %04x: answered % .20x, %v", mode, field, offered, got, err)
					}
					c.Close()
					n++
					if h := g.WaitHandshake(t, n); h.Outcome != outcome || h.Outcome == Failed && h.Failure != FailMalformed || h.Verdict.Version != policy.Version(offered) {
						t.Errorf("%s, %04x and %04x: %s, %s, version %s", mode, field, offered, h.Outcome, h.Failure, h.Verdict.Version)
					}
				}
			}
		}
	}
	if n := old.Connections(); n > 0 {
		t.Errorf("%d were passed through", n)
	}
}

// The alert is in a record of the hello's own version, whoever sends it, as OpenSSL's
// servers do: old clients read no other.
func TestTheAlertHasTheVersionOfTheHello(t *testing.T) {
	imap, pop3 := stubs(t)
	g := StartProxy(t, policy.Enforce, imap.Addr(), pop3.Addr(), nil)
	for _, l := range Listeners {
		for version, want := range map[uint16]byte{0x0300: 0, 0x0301: 1, 0x0302: 2, 0x0303: 3} {
			s := hello.Typical(version)
			s.CipherSuites = []uint16{0x0033} // DHE
			dot := s
			dot.NoExtensions, dot.ServerName = false, "localhost."
			for name, flight := range map[string][]byte{
				"whole": hello.ClientHello(s), "cut": posterntest.Fragment(hello.ClientHello(s), 3), "not read": hello.ClientHello(dot),
			} {
				c := g.Dial(t, l)
				if !l.ImplicitTLS() {
					beginTLS(t, c, l)
				}
				c.Write(flight)
				if got, err := io.ReadAll(c); err != nil || !isAlert(got) || got[2] != want {
					t.Errorf("%s, %04x, %s: answered % x, %v", l, version, name, got, err)
				}
				c.Close()
			}
		}
	}
}
