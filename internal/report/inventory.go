package report

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/proxy"
)

// Inventory is what handshakes have agreed on in a time, the most frequent first. Its
// JSON is stable.
type Inventory struct {
	Now time.Time `json:"now"`
	// Since is the first day, in UTC.
	Since string `json:"since"`
	// Began and Young are as in Head.
	Began      time.Time `json:"ledger_began"`
	Young      bool      `json:"younger_than_since"`
	Handshakes int64     `json:"handshakes"`
	// Full are those that were not resumed, and so have exchanged keys by one of
	// KeyExchanges; PostQuantum is the share of them that have done so with ML-KEM.
	Full         int64               `json:"full_handshakes"`
	PostQuantum  float64             `json:"post_quantum_share"`
	Versions     []Share             `json:"versions"`
	CipherSuites []Share             `json:"cipher_suites"`
	KeyExchanges []Share             `json:"key_exchanges"`
	KeyTypes     []Share             `json:"key_types"`
	Negotiated   []ledger.Negotiated `json:"negotiated"`
}

// Share is a part of the handshakes, from 0 to 1.
type Share struct {
	Name       string  `json:"name"`
	Handshakes int64   `json:"handshakes"`
	Share      float64 `json:"share"`
}

func newInventory(now, since time.Time, list []ledger.Negotiated) *Inventory {
	v := &Inventory{Now: now, Since: since.UTC().Format(time.DateOnly), Negotiated: append([]ledger.Negotiated{}, list...)}
	var hybrid int64
	for _, n := range list {
		v.Handshakes += n.Handshakes
		if n.KeyExchange != proxy.KeyExchangeResumed {
			v.Full += n.Handshakes
		}
		if quantumLevel[string(n.KeyExchange)] > 0 {
			hybrid += n.Handshakes
		}
	}
	v.PostQuantum = float64(hybrid) / float64(max(v.Full, 1))
	v.Versions = v.shares(func(n *ledger.Negotiated) string { return n.Version })
	v.CipherSuites = v.shares(func(n *ledger.Negotiated) string { return n.CipherSuite })
	v.KeyExchanges = v.shares(func(n *ledger.Negotiated) string { return string(n.KeyExchange) })
	v.KeyTypes = v.shares(func(n *ledger.Negotiated) string { return string(n.KeyType) })
	return v
}

// shares adds up the handshakes by a name.
func (v *Inventory) shares(name func(*ledger.Negotiated) string) []Share {
	all := []Share{}
	for i := range v.Negotiated {
		n := &v.Negotiated[i]
		at := slices.IndexFunc(all, func(s Share) bool { return s.Name == name(n) })
		if at < 0 {
			at, all = len(all), append(all, Share{Name: name(n)})
		}
		all[at].Handshakes += n.Handshakes
		all[at].Share = float64(all[at].Handshakes) / float64(v.Handshakes)
	}
	slices.SortStableFunc(all, func(a, b Share) int { return cmp.Compare(b.Handshakes, a.Handshakes) })
	return all
}

// quantumLevel has NIST's security level of key exchanges against quantum computers, which
// is that of their ML-KEM (FIPS 203, Section 8).
var quantumLevel = map[string]int{"x25519mlkem768": 3, "secp256r1mlkem768": 3, "secp384r1mlkem1024": 5}

// inventory writes what was negotiated since a time.
func (p *pass) inventory(ctx context.Context, w io.Writer) error {
	list, err := p.f.Negotiated(ctx, p.since)
	if err != nil {
		return err
	}
	v := newInventory(p.Now, p.since, list)
	v.Began, v.Young = p.Began, p.Young
	o := output{bufio.NewWriter(w), p}
	switch p.style.Format {
	case JSON:
		o.Write(append(indented(v), '\n'))
	case CycloneDX:
		err = cdx.NewBOMEncoder(o, cdx.BOMFileFormatJSON).SetPretty(true).Encode(v.bom())
	case CSV:
		o.record([]string{"listener", "version", "cipher_suite", "key_exchange", "key_type", "handshakes"})
		for _, n := range v.Negotiated {
			o.record([]string{string(n.Listener), n.Version, n.CipherSuite, string(n.KeyExchange), string(n.KeyType), fmt.Sprint(n.Handshakes)})
		}
	default:
		o.document().inventory(v)
	}
	return cmp.Or(err, o.Flush())
}

func (d *document) inventory(v *Inventory) {
	d.paragraph(fmt.Sprintf("%s completed from %s (UTC) to %s.", text.Number(int(v.Handshakes), "handshake"), v.Since, date(v.Now)), "")
	if v.Handshakes == 0 {
		d.paragraph("What is negotiated is written to the ledger once a minute.", "")
		return
	}
	if d.Young {
		d.paragraph("The ledger began "+date(d.Began)+": it knows nothing of the time before.", "")
	}
	headings := []string{"version", "cipher suite", "key exchange", "certificate's key"}
	for i, shares := range [][]Share{v.Versions, v.CipherSuites, v.KeyExchanges, v.KeyTypes} {
		rows := text.Each(shares, func(s Share) []string {
			return []string{s.Name, fmt.Sprint(s.Handshakes), fmt.Sprintf("%.1f %%", 100*s.Share)}
		})
		d.WriteByte('\n')
		d.table([]string{headings[i], "handshakes", "share"}, rows)
	}
	d.WriteByte('\n')
	d.paragraph(fmt.Sprintf("Post-quantum (ML-KEM): %.1f %% of the %s that were not resumed.", 100*v.PostQuantum, text.Number(int(v.Full), "handshake")), "")
}

// bom returns a cryptography bill of materials: TLS by version with its cipher suites,
// and what agrees on keys and signs in it, each with how many handshakes it was in.
func (v *Inventory) bom() *cdx.BOM {
	bom := cdx.NewBOM()
	// EncodeVersion would call a cryptographic asset an application.
	bom.SpecVersion, bom.JSONSchema = cdx.SpecVersion1_6, "http://cyclonedx.org/schema/bom-1.6.schema.json"
	bom.Metadata = &cdx.Metadata{
		Timestamp: v.Now.Format(time.RFC3339), Component: &cdx.Component{Type: cdx.ComponentTypeApplication, BOMRef: "postern", Name: "postern"},
		Properties: &[]cdx.Property{{Name: "postern:since", Value: v.Since}},
	}
	components := []cdx.Component{}
	add := func(s Share, ref cdx.BOMReference, properties cdx.CryptoProperties) {
		components = append(components, cdx.Component{
			Type: cdx.ComponentTypeCryptographicAsset, BOMRef: string(ref), Name: s.Name, CryptoProperties: &properties,
			Properties: &[]cdx.Property{{Name: "postern:handshakes", Value: fmt.Sprint(s.Handshakes)}},
		})
	}
	for _, s := range v.Versions {
		of := newInventory(v.Now, time.Time{}, slices.DeleteFunc(slices.Clone(v.Negotiated), func(n ledger.Negotiated) bool { return n.Version != s.Name }))
		suites := text.Each(of.CipherSuites, func(suite Share) cdx.CipherSuite { return cdx.CipherSuite{Name: suite.Name} })
		_, refs := of.algorithms()
		add(s, cdx.BOMReference(s.Name), cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeProtocol, ProtocolProperties: &cdx.CryptoProtocolProperties{
			Type: cdx.CryptoProtocolTypeTLS, Version: strings.TrimPrefix(s.Name, "tls"), CipherSuites: &suites, CryptoRefArray: &refs}})
	}
	algorithms, refs := v.algorithms()
	for i, s := range algorithms {
		level, primitive := quantumLevel[s.Name], cdx.CryptoPrimitiveKeyAgree
		switch {
		case strings.HasPrefix(string(refs[i]), certificateKey):
			primitive = cdx.CryptoPrimitiveSignature
		case s.Name == string(proxy.KeyExchangeRSA):
			primitive = cdx.CryptoPrimitivePKE
		case level > 0:
			primitive = cdx.CryptoPrimitiveCombiner
		}
		add(s, refs[i], cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeAlgorithm,
			AlgorithmProperties: &cdx.CryptoAlgorithmProperties{Primitive: primitive, NistQuantumSecurityLevel: &level}})
	}
	bom.Components = &components
	return bom
}

const certificateKey = "certificate-key:"

// algorithms are the key exchanges and the keys of certificates, and their references.
func (v *Inventory) algorithms() (all []Share, refs []cdx.BOMReference) {
	refs = []cdx.BOMReference{} // no null in JSON
	none := []string{string(proxy.KeyExchangeResumed), string(proxy.KeyExchangeNone), string(proxy.KeyNone)}
	for i, s := range slices.Concat(v.KeyExchanges, v.KeyTypes) {
		if !slices.Contains(none, s.Name) {
			kind := text.Either(i < len(v.KeyExchanges), "key-exchange:", certificateKey)
			all, refs = append(all, s), append(refs, cdx.BOMReference(kind+s.Name))
		}
	}
	return all, refs
}
