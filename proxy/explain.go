package proxy

import (
	"strings"

	"postern/policy"
)

// DefaultExplainText is what a client is told whose version is too old.
const DefaultExplainText = "TLS {version} is no longer accepted here; update your mail program to one that supports TLS {floor} or later."

// explainCipher is what a client is told whose version would do.
const explainCipher = "The encryption that your mail program offers is no longer accepted here; please update it."

// explanation is what a legacy client is told.
func (srv *Server) explanation(v policy.Verdict) string {
	if v.Reason == policy.ReasonCipher {
		return explainCipher
	}
	return strings.NewReplacer(
		"{version}", v.Version.Number(),
		"{floor}", v.Floor.MinVersion().Number(),
	).Replace(srv.cfg.ExplainText)
}
