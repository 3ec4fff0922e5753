#!/usr/bin/env bash
# A cryptography bill of materials lists components of the type "cryptographic-asset",
# which CycloneDX has known since 1.6. The Go library has a constant for the type, and
# EncodeVersion, which writes a bill in an earlier version than the library's newest: it
# calls such a component an "application" in 1.6 and in 1.7 alike. The bill still follows
# its schema, so that no validator says a word, and who looks for cryptographic assets
# finds none. Encode, with SpecVersion set by hand, keeps the type.
#
# Seen with github.com/CycloneDX/cyclonedx-go v0.12.0. Needs Go. Exits 1 where it is
# otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
cat >main.go <<'END'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	bom := cdx.NewBOM()
	bom.SpecVersion = cdx.SpecVersion1_6
	bom.Components = &[]cdx.Component{{Type: cdx.ComponentTypeCryptographicAsset, Name: "TLS 1.3",
		CryptoProperties: &cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeProtocol}}}
	write := func(how string, encode func(cdx.BOMEncoder) error) {
		var b bytes.Buffer
		var read struct{ Components []struct{ Type string } }
		if err := encode(cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON)); err != nil {
			panic(err)
		}
		if err := json.Unmarshal(b.Bytes(), &read); err != nil {
			panic(err)
		}
		fmt.Println(how, read.Components[0].Type)
	}
	write("Encode", func(e cdx.BOMEncoder) error { return e.Encode(bom) })
	write("EncodeVersion 1.6", func(e cdx.BOMEncoder) error { return e.EncodeVersion(bom, cdx.SpecVersion1_6) })
	write("EncodeVersion 1.7", func(e cdx.BOMEncoder) error { return e.EncodeVersion(bom, cdx.SpecVersion1_7) })
}
END
export GOFLAGS=-mod=mod
go mod init finding >/dev/null 2>&1
go get github.com/CycloneDX/cyclonedx-go@v0.12.0 >/dev/null 2>&1
go run . | tee seen
diff - seen <<'END'
Encode cryptographic-asset
EncodeVersion 1.6 application
EncodeVersion 1.7 application
END
