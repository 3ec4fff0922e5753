package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// HashAccount hides the part before the @, so that it can only be told by who
// has the key and tries names; the domain stays.
func HashAccount(key []byte, account string) string {
	account = strings.ToLower(account)
	local, domain := account, ""
	if at := strings.LastIndexByte(account, '@'); at >= 0 {
		local, domain = account[:at], account[at:]
	}
	// The domain is hashed along: the same name elsewhere is somebody else.
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(local + domain))
	const bytes = 15 // enough that no two accounts meet
	return "h:" + strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil)[:bytes])) + domain
}
