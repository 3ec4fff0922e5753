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
// worse: it has an invalid certificate for a valid one, or a file that is still
// there has lost its certificate or key, and no other is valid for its names.
// The error holds all reasons, a line each, with the name of the file.
func Renew(old, fresh *Store, now time.Time) (gone []Info, err error) {
	var problems []error
	byName := make(map[string]Info, len(fresh.infos))
	byLeaf := make(map[string]bool, len(fresh.infos))
	allWorse, anyValid := true, false
	for _, info := range fresh.infos {
		byName[info.Name] = info
		byLeaf[string(info.Leaf.Raw)] = true
		allWorse = allWorse && untimely(info.Leaf, now) != ""
	}
	for _, was := range old.infos {
		valid := untimely(was.Leaf, now) == ""
		anyValid = anyValid || valid
		is, there := byName[was.Name]
		switch {
		case there && valid && untimely(is.Leaf, now) != "" && !fresh.replaces(was, now):
			problems = append(problems, invalid(is, now))
		case there || byLeaf[string(was.Leaf.Raw)]:
		case exists(was.Name) && !fresh.replaces(was, now):
			problems = append(problems, fmt.Errorf("%s: no certificate with its key any more, as one that is half renewed: put both of one renewal there", was.Name))
		default:
			gone = append(gone, was)
		}
	}
	if len(problems) == 0 && allWorse && anyValid {
		problems = append(problems, invalid(fresh.infos[0], now))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return gone, nil
}

func invalid(i Info, now time.Time) error {
	return fmt.Errorf("%s: the new certificate %s: put one there that is valid now", i.Name, untimely(i.Leaf, now))
}

// replaces reports whether the store has valid certificates with the same type
// of key for all names of one.
func (s *Store) replaces(p Info, now time.Time) bool {
	list := names(p.Leaf)
	for _, name := range list {
		set := s.exact[name]
		if set == nil {
			set = s.wildcardFor(name)
		}
		if set == nil || set.keys&p.key == 0 || untimely(set.Certificate(p.key, now).Leaf, now) != "" {
			return false
		}
	}
	return len(list) > 0
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
