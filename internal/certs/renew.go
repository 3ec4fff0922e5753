package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Renew decides whether the new store may replace the old one, and returns the
// old certificates whose files are gone. An error means that the new store is
// worse: it has an invalid certificate for a valid one, or a file has lost its
// certificate. The error holds all reasons, a line each, with the name of the
// file.
func Renew(old, fresh *Store, now time.Time) (gone []Info, err error) {
	var problems []error
	byName := make(map[string]Info, len(fresh.infos))
	byLeaf := make(map[string]bool, len(fresh.infos))
	allWorse, anyValid := true, false
	for _, info := range fresh.infos {
		byName[info.Name] = info
		byLeaf[string(info.Leaf.Raw)] = true
		allWorse = allWorse && info.invalid(now) != ""
	}
	for _, was := range old.infos {
		valid := was.invalid(now) == ""
		anyValid = anyValid || valid
		is, there := byName[was.Name]
		switch {
		case there && valid && is.invalid(now) != "":
			problems = append(problems, fmt.Errorf("%s: the new certificate %s", is.Name, is.invalid(now)))
		case there || byLeaf[string(was.Leaf.Raw)]:
		case emptied(was.Name):
			problems = append(problems, named(was.Name, errNoCertificate))
		default:
			gone = append(gone, was)
		}
	}
	if len(problems) == 0 && allWorse && anyValid {
		problems = append(problems, fmt.Errorf("%s: the new certificate %s", fresh.infos[0].Name, fresh.infos[0].invalid(now)))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return gone, nil
}

// emptied reports whether a file exists without a certificate in it: in a
// directory it would be skipped silently.
func emptied(name string) bool {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	c, err := readPEM(name)
	return err != nil || len(c.chain) == 0
}

// invalid returns why the certificate is not valid at that time, or "".
func (i Info) invalid(now time.Time) string {
	switch {
	case now.After(i.Leaf.NotAfter):
		return "has expired at " + i.Leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(i.Leaf.NotBefore):
		return "is not valid before " + i.Leaf.NotBefore.UTC().Format(time.RFC3339)
	}
	return ""
}
