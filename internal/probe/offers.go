package probe

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"postern/internal/hello"
	"postern/internal/text"
	"postern/policy"
)

// offer is one question: what does the server say to this hello?
type offer struct {
	Offer   string `json:"offer"`
	title   string
	version policy.Version
	spec    hello.Spec
}

// Offers that have a meaning of their own.
const (
	fallback = "fallback"
	hybrid   = "hybrid"
	noName   = "no-server-name"
)

func (o offer) isVersion() bool { return o.Offer == o.version.String() }

// offers are in the order in which they are asked, and stand in a table.
func offers() (all []offer) {
	all = text.Each([]policy.Version{policy.TLS13, policy.TLS12, policy.TLS11, policy.TLS10, policy.SSL3, policy.SSL2}, func(v policy.Version) offer {
		return offer{v.String(), v.Name(), v, hello.Wide(uint16(v))}
	})
	tls12, hybrids := hello.Wide(tls.VersionTLS12), hello.Wide(tls.VersionTLS13)
	hybrids.Groups = policy.FloorTLS13PQ.Groups()
	sha1 := tls12.Only(slices.Concat(hello.ECDHE, hello.DHE)...)
	unsigned := sha1
	sha1.SignatureSchemes, unsigned.SignatureSchemes = []tls.SignatureScheme{tls.PKCS1WithSHA1, tls.ECDSAWithSHA1}, nil
	return append(all,
		offer{"rsa", "RSA key exchange", policy.TLS12, tls12.Only(hello.RSA...)},
		offer{"dhe", "DHE", policy.TLS12, tls12.Only(hello.DHE...)},
		offer{"3des", "3DES", policy.TLS12, tls12.Only(hello.TDES...)},
		offer{"rc4", "RC4", policy.TLS12, tls12.Only(hello.RC4...)},
		offer{"cbc", "CBC with ECDHE", policy.TLS12, tls12.Only(hello.CBC...)},
		offer{"sha1", "SHA-1 signatures alone", policy.TLS12, sha1},
		offer{"no-signatures", "hellos without signature algorithms", policy.TLS12, unsigned},
		offer{fallback, "fallback to an older version", policy.NoVersion, tls12}, // of which version is seen later
		offer{hybrid, "hybrid groups alone", policy.TLS13, hybrids},
		offer{noName, "hellos without a server name", policy.TLS12, tls12},
	)
}

// Result is the answer to an offer.
type Result struct {
	offer
	// Taken: the server would go on with what was offered.
	Taken bool `json:"taken"`
	// Answer is in words.
	Answer      string         `json:"answer"`
	Alert       *uint8         `json:"alert,omitempty"`
	Version     policy.Version `json:"version,omitzero"`
	CipherSuite string         `json:"cipher_suite,omitempty"`
	// Group is the prime's length where that has no name.
	Group     string `json:"group,omitempty"`
	Signature string `json:"signature,omitempty"`
	// Refusal is the line with which a client is turned away once it is inside TLS.
	Refusal string `json:"refusal,omitempty"`
	// Unknown: there was no answer in time.
	Unknown bool `json:"unknown,omitempty"`

	// reaches are the floors that the handshake reaches.
	reaches []policy.Floor
}

// inTLS reports whether the answer is one in TLS.
func (r Result) inTLS() bool { return r.Version != 0 || r.Alert != nil }

// take reads what came back.
func (r *Result) take(f hello.Flight) {
	r.Version = policy.Version(f.Version)
	r.Answer = r.Version.Name()
	switch f.Kind {
	case hello.Alert:
		r.Alert = &f.Alert
		r.Answer = fmt.Sprintf("alert %d, %s", f.Alert, strings.TrimPrefix(tls.AlertError(f.Alert).Error(), "tls: "))
	case hello.Text:
		r.Answer = "answers in plaintext" + protocolHint(f.Text) + ": " + Quoted(f.Text)
	case hello.SSLv2Server:
		if r.Taken = f.Kinds > 0; !r.Taken {
			r.Answer += ", no cipher kind shared"
		}
	default:
		if r.Taken, r.reaches = r.Version == r.version, reached(f); !r.Taken {
			r.Answer = "answers with " + r.Answer
		}
		r.CipherSuite = policy.CipherSuiteName(f.CipherSuite)
		switch {
		case f.Prime != 0:
			r.Group = fmt.Sprintf("a prime of %d bits", f.Prime)
		case f.Group != 0:
			r.Group = policy.GroupName(f.Group)
		}
		if f.Scheme != 0 {
			r.Signature = policy.SchemeName(f.Scheme)
		}
		chosen := slices.DeleteFunc([]string{r.Answer, r.CipherSuite, r.Group, r.Signature}, func(s string) bool { return s == "" })
		r.Answer = strings.Join(chosen, ", ")
	}
}

// reached returns the floors that a handshake reaches. Of ECDHE, what they do not name is
// judged as what is like it.
func reached(f hello.Flight) []policy.Floor {
	name := policy.CipherSuiteName(f.CipherSuite)
	switch ecdhe := strings.HasPrefix(name, "TLS_ECDHE_"); {
	case f.Version == tls.VersionTLS13:
		return slices.DeleteFunc(slices.Clone(policy.Floors), func(floor policy.Floor) bool { return !slices.Contains(floor.Groups(), f.Group) })
	case f.Version < tls.VersionTLS12, strings.Contains(name, "_3DES_"), strings.Contains(name, "_RC4_"), f.Scheme>>8 == 2: // SHA-1
	case strings.HasPrefix(name, "TLS_RSA_WITH_AES_"):
		return policy.Floors[:1]
	case ecdhe && strings.Contains(name, "_CBC_"):
		return policy.Floors[:2]
	case ecdhe:
		return policy.Floors[:3]
	}
	return nil
}
