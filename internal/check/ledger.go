package check

import (
	"context"
	"errors"
	"net"
	"strings"

	"postern/internal/config"
	"postern/internal/ledger"
)

// ledger checks whether the ledger can be opened and written. A database that cannot
// now is no error: Postern runs without it.
func (r *Report) ledger(ctx context.Context, cfg *config.Config, offline bool) {
	if cfg.LedgerIdentity == "hashed" {
		_, err := cfg.IdentityKey()
		r.addError(err)
	}
	isFile := strings.HasPrefix(cfg.LedgerURL, "sqlite:")
	if ledger.Check(cfg.LedgerURL) != "" || cfg.LedgerURL == ledger.Memory || offline && !isFile {
		return // it did not parse, which was said, or there is nothing to open
	}
	name := variable("LEDGER_URL") + ": "
	switch err := ledger.Try(ctx, cfg.LedgerURL); {
	case errors.Is(err, ledger.ErrAway) && errors.As(err, new(net.Error)):
		r.Warnings = append(r.Warnings, name+err.Error()+"; start it, or mend host and port in the URL; until then Postern keeps what it sees in memory")
	case errors.Is(err, ledger.ErrAway):
		r.Warnings = append(r.Warnings, name+err.Error())
	case err != nil:
		r.Errors = append(r.Errors, name+err.Error())
	}
}
