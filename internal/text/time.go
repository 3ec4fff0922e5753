package text

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const day = 24 * time.Hour

// Date writes a time with the day of the week and the zone, glued for Wrap; nil
// is UTC.
func Date(t time.Time, zone *time.Location) string {
	return Glued(date("Mon 2 Jan 2006 15:04", t, zone))
}

// CommaDate is Date for a page: unglued, with a comma between day and hour.
func CommaDate(t time.Time, zone *time.Location) string {
	return date("Mon 2 Jan 2006, 15:04", t, zone)
}

func date(layout string, t time.Time, zone *time.Location) string {
	if t.Second() != 0 {
		layout += ":05"
	}
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format(layout + " MST")
}

// Later and Earlier choose one of two times.
func Later(a, b time.Time) time.Time   { return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare) }
func Earlier(a, b time.Time) time.Time { return slices.MinFunc([]time.Time{a, b}, time.Time.Compare) }

// Ahead says how far ahead a time is.
func Ahead(d time.Duration) string {
	return Either(d < time.Minute, "within a minute", "in "+span(d))
}

// Ago says how long ago a time was.
func Ago(d time.Duration) string {
	return Either(d < time.Minute, "just now", span(d)+" ago")
}

// span writes a time in the largest unit of which it has at least two.
func span(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return "a minute"
}

// Duration writes a duration without trailing zeroes, as in 10m.
func Duration(d time.Duration) string { return zeroes.ReplaceAllString(d.String(), "$1") }

var zeroes = regexp.MustCompile(`([hm])(0m)?0s$`)

// Days writes a duration in days if it is a whole number of them.
func Days(d time.Duration) string {
	switch {
	case d == day:
		return "24 hours"
	case d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return Duration(d)
}

var (
	errUnit     = errors.New("not a duration, since its unit is missing: write one such as 10s, 30m, 36h or 90d")
	errDuration = errors.New("not a duration above zero: write one such as 10s, 30m, 36h or 90d")
	errSince    = errors.New("neither a date nor a duration: write a date as 2026-11-01, or how far to look back as 36h or 30d")
	errAhead    = errors.New("in the future: write when to begin, as 2026-06-01, or how far to look back as 36h or 30d")
)

// ParseDuration reads a duration above zero in Go's syntax, with leading days of
// 24 hours, as in 90d or 1d12h. The error says what is expected and holds nothing
// of the text.
func ParseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseUint(s, 10, 64); err == nil && s != "0" {
		return 0, errUnit
	}
	days, rest, found := strings.Cut(s, "d")
	switch {
	case !found:
		days, rest = "0", s
	case rest == "":
		rest = "0"
	}
	n, derr := strconv.ParseUint(days, 10, 64)
	d, err := time.ParseDuration(rest)
	switch whole := time.Duration(n) * day; {
	case err != nil, derr != nil, n > uint64(math.MaxInt64/day), found && strings.ContainsAny(rest, "+-"),
		d > math.MaxInt64-whole, d+whole <= 0:
		return 0, errDuration
	default:
		return d + whole, nil
	}
}

// ParseSince reads a time before now as ParseTime does, or a duration back from now.
func ParseSince(s string, now time.Time) (time.Time, error) {
	t, _, err := ParseTime(s)
	if d, notDuration := ParseDuration(s); err != nil && notDuration == nil {
		return now.Add(-d), nil
	}
	switch {
	case err != nil:
		return time.Time{}, errSince
	case !t.Before(now):
		return time.Time{}, errAhead
	}
	return t, nil
}

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
