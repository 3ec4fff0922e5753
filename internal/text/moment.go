package text

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// momentForm is RFC 3339, where a blank may stand for the T, and seconds, the
// offset and all of the time of day may be missing.
var momentForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$`)
})

// ErrMoment is the error of ParseTime for a text that is no date at all.
var ErrMoment = errors.New("is not a date and time such as 2026-07-01T00:00:00Z")

// ParseTime reads a moment from 1970 to 9999, as people write it: RFC 3339, or
// with a blank for the T, or without seconds, offset or time of day. Zoned is
// false where the offset is missing, and UTC was taken. The error goes on where
// the quoted text ends.
func ParseTime(s string) (t time.Time, zoned bool, err error) {
	m := momentForm().FindStringSubmatch(s)
	if m == nil {
		return t, false, ErrMoment
	}
	var n [7]int // year to second, as in m
	for i := range 6 {
		n[i+1], _ = strconv.Atoi(m[i+1])
	}
	offset, offsetOK := parseOffset(m[8])
	month := time.Month(n[2])
	switch {
	case month < 1 || month > 12:
		return t, false, fmt.Errorf("is no date: there is no month %s", m[2])
	case n[3] < 1 || n[3] > daysIn(n[1], month):
		return t, false, fmt.Errorf("is no date: %s %d has %d days", month, n[1], daysIn(n[1], month))
	case n[4] == 24:
		return t, false, errors.New("is no time of day: 24:00 is 00:00 of the next day")
	case n[4] > 23 || n[5] > 59 || n[6] > 59:
		return t, false, errors.New("is no time of day from 00:00:00 to 23:59:59")
	case !offsetOK:
		return t, false, errors.New("has no offset from -23:59 to +23:59")
	}
	fraction, _ := strconv.ParseFloat("0"+m[7], 64)
	t = time.Date(n[1], month, n[3], n[4], n[5], n[6], int(fraction*float64(time.Second)+0.5), time.UTC).Add(-offset)
	if t.Year() < 1970 || t.Year() > 9999 {
		return t, false, errors.New("is not between 1970 and 9999")
	}
	return t, m[8] != "", nil
}

// ParseZonedTime is ParseTime for what must have an offset.
func ParseZonedTime(s string) (time.Time, error) {
	t, zoned, err := ParseTime(s)
	switch {
	case err != nil || zoned:
		return t, err
	case len(s) == len(time.DateOnly):
		return t, fmt.Errorf("has no time of day and no offset: write %sT00:00:00Z for UTC, or +02:00 in the place of Z", s)
	}
	return t, errors.New("has no offset: put Z for UTC behind it, or one such as +02:00")
}

func parseOffset(s string) (d time.Duration, ok bool) {
	if s == "" || s == "Z" {
		return 0, true
	}
	hours, _ := strconv.Atoi(s[1:3])
	minutes, _ := strconv.Atoi(s[4:6])
	d = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		d = -d
	}
	return d, hours < 24 && minutes < 60
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
