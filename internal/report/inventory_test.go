package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"postern/internal/ledger"
)

var negotiated = []ledger.Negotiated{
	{Listener: "imaps", Version: "tls1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", KeyExchange: "x25519mlkem768", KeyType: "ecdsa", Handshakes: 7000},
	{Listener: "imaps", Version: "tls1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", KeyExchange: "resumed", KeyType: "none", Handshakes: 5000},
	{Listener: "pop3", Version: "tls1.2", CipherSuite: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", KeyExchange: "secp256r1", KeyType: "rsa", Handshakes: 2000},
	{Listener: "imap", Version: "tls1.3", CipherSuite: "TLS_CHACHA20_POLY1305_SHA256", KeyExchange: "secp384r1mlkem1024", KeyType: "ecdsa", Handshakes: 900},
	{Listener: "imaps", Version: "tls1.0", CipherSuite: "TLS_RSA_WITH_AES_128_CBC_SHA", KeyExchange: "rsa", KeyType: "rsa", Handshakes: 100},
}

func inventory(t *testing.T, format Format, list []ledger.Negotiated) string {
	t.Helper()
	f := sampleFacts(t)
	f.Facts.Negotiated = func(_ context.Context, since time.Time) ([]ledger.Negotiated, error) {
		if want := sampleNow.Add(-fortnight); !since.Equal(want) {
			t.Errorf("asked since %s, want %s", since, want)
		}
		return list, nil
	}
	var b bytes.Buffer
	if _, err := f.Facts.Write(t.Context(), &b, Options{Since: fortnight}, Style{Format: format, Inventory: true}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheInventoryThatPeopleRead(t *testing.T) {
	for name, format := range map[string]Format{"inventory.txt": Text, "inventory.md": Markdown, "inventory.csv": CSV, "inventory.json": JSON} {
		t.Run(name, func(t *testing.T) {
			text := inventory(t, format, negotiated)
			if format == JSON && !json.Valid([]byte(text)) {
				t.Error("not JSON")
			}
			golden(t, name, text)
		})
	}
	golden(t, "inventory-nothing.txt", inventory(t, Text, nil))
}

// TestAnInventorySaysHowFarTheLedgerGoesBack where that is less than was asked for.
func TestAnInventorySaysHowFarTheLedgerGoesBack(t *testing.T) {
	f := sampleFacts(t)
	f.Facts.Negotiated = func(context.Context, time.Time) ([]ledger.Negotiated, error) { return negotiated, nil }
	for began, want := range map[time.Time]bool{sampleNow.Add(-5 * time.Minute): true, sampleNow.Add(-fortnight - day): false} {
		f.Began = began
		for format, words := range map[Format]string{
			Text: "The ledger began Wed 25 Nov 2026 10:00 UTC: it knows nothing of the time before.\n", Markdown: "The ledger began Wed 25 Nov 2026 10:00 UTC: it knows nothing of the time before.\n",
			JSON: `"ledger_began": "2026-11-25T10:00:30Z",` + "\n" + `  "younger_than_since": true`,
		} {
			var b bytes.Buffer
			if _, err := f.Facts.Write(t.Context(), &b, Options{Since: fortnight}, Style{Format: format, Inventory: true}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), words) != want {
				t.Errorf("%s of a ledger since %s:\n%s", format, began, b.String())
			}
		}
	}
}

// TestTheBillOfMaterialsFollowsItsSchema holds it to the schemas that come with the
// library, which are those of CycloneDX 1.6.
func TestTheBillOfMaterialsFollowsItsSchema(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	schemas := filepath.Join(strings.TrimSpace(string(dir)), "schema")
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, url := range map[string]string{
		"bom-1.6.schema.json":   "http://cyclonedx.org/schema/bom-1.6.schema.json",
		"spdx.schema.json":      "http://cyclonedx.org/schema/spdx.schema.json",
		"jsf-0.82.schemax.json": "http://cyclonedx.org/schema/jsf-0.82.schema.json",
	} {
		text, err := os.ReadFile(filepath.Join(schemas, name))
		if err != nil {
			t.Fatal(err)
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err := errors.Join(err, c.AddResource(url, schema)); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(text string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		return errors.Join(err, schema.Validate(v))
	}
	for _, list := range [][]ledger.Negotiated{negotiated, negotiated[1:2], nil} {
		if err := validate(inventory(t, CycloneDX, list)); err != nil {
			t.Error(err)
		}
	}
	bom := inventory(t, CycloneDX, negotiated)
	for _, broken := range []*strings.Replacer{
		strings.NewReplacer("cryptographic-asset", "asset"), strings.NewReplacer(`"combiner"`, `"hybrid"`), strings.NewReplacer(`"assetType"`, `"kind"`),
	} {
		if validate(broken.Replace(bom)) == nil {
			t.Error("the schema takes anything")
		}
	}
	golden(t, "inventory.cdx.json", bom)
}
