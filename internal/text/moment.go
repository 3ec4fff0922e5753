package text

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// momentForm is RFC 3339, where a blank may stand for the T, and seconds, the
// offset and all of the time of day may be missing.
var momentForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(Z|[+-](?:[01]\d|2[0-3]):\d\d)?)?$`)
})

var errMoment = errors.New("is not a date and time: write one such as 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00")

// ParseTime reads a moment from 1970 to 9999, as people write it: RFC 3339, or
// with a blank for the T, or without seconds, offset or time of day. Zoned is
// false where the offset is missing, and UTC was taken. The error goes on where
// the quoted text ends.
func ParseTime(s string) (t time.Time, zoned bool, err error) {
	m := momentForm().FindStringSubmatch(s)
	if m == nil {
		return t, false, errMoment
	}
	t, err = time.Parse(time.RFC3339, m[1]+"T"+cmp.Or(m[2], "00:00")+cmp.Or(m[3], ":00")+cmp.Or(m[4], "Z"))
	if wrong, ok := errors.AsType[*time.ParseError](err); ok {
		return t, false, fmt.Errorf("is no date and time%s", wrong.Message)
	}
	if t = t.UTC(); t.Year() < 1970 || t.Year() > 9999 {
		return t, false, errors.New("is not between 1970 and 9999")
	}
	return t, m[4] != "", nil
}

// ParseZonedTime is ParseTime for what must have an offset.
func ParseZonedTime(s string) (time.Time, error) {
	t, zoned, err := ParseTime(s)
	if err == nil && !zoned {
		err = fmt.Errorf("has no offset: write %sZ for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z", t.Format("2006-01-02T15:04:05"))
	}
	return t, err
}
