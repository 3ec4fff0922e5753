package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/internal/config"
	"postern/internal/ledger"
)

// ledger checks whether the ledger can be written. A database that does not
// answer is no error: Postern runs without it.
func (r *Report) ledger(ctx context.Context, cfg *config.Config, offline bool) {
	if cfg.LedgerIdentity == "hashed" && cfg.LedgerIdentityKeyFile != "" {
		_, err := config.ReadSecret("LEDGER_IDENTITY_KEY_FILE", cfg.LedgerIdentityKeyFile, "key", nil)
		r.addError(err)
	}
	name := variable("LEDGER_URL")
	switch path, isFile := strings.CutPrefix(cfg.LedgerURL, "sqlite:"); {
	case cfg.LedgerURL == "" || ledger.Check(cfg.LedgerURL) != "": // it did not parse, which was said
	case isFile:
		dir := filepath.Dir(path)
		const write, search = 2, 1
		if err := syscall.Access(dir, write|search); err != nil {
			r.Errors = append(r.Errors, fmt.Sprintf("%s: %s: %v: the ledger cannot be made there", name, dir, err))
		}
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			r.Errors = append(r.Errors, fmt.Sprintf("%s: %s is not a file", name, path))
		}
	case cfg.LedgerURL != ledger.Memory && !offline:
		if err := ledger.Ping(ctx, cfg.LedgerURL); err != nil {
			r.Warnings = append(r.Warnings, name+": "+err.Error())
		}
	}
}
