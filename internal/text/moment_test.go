package text

import (
	"errors"
	"testing"
	"time"
)

func TestTimesAsPeopleWriteThem(t *testing.T) {
	for s, want := range map[string]string{
		"2026-07-01T10:30:05Z":           "2026-07-01T10:30:05Z",
		"2026-07-01 10:30:05+02:00":      "2026-07-01T08:30:05Z",
		"2026-07-01T10:30-05:30":         "2026-07-01T16:00:00Z",
		"2024-02-29T23:59:59.123456789Z": "2024-02-29T23:59:59.123456789Z",
		"2026-07-01 10:30":               "2026-07-01T10:30:00Z, no offset",
		"2026-07-01":                     "2026-07-01T00:00:00Z, no offset",
		"1970-01-01T01:00:00+01:00":      "1970-01-01T00:00:00Z",
	} {
		got, zoned, err := ParseTime(s)
		said := got.Format(time.RFC3339Nano)
		if !zoned {
			said += ", no offset"
		}
		if err != nil || said != want {
			t.Errorf("%s: %s, %v; want %s", s, said, err, want)
		}
	}
	for _, s := range []string{"", "tomorrow", "2026-7-1", "2026-07-01T10", "2026-07-01T10:30:00,5Z", "2026-07-01T10:30:00 Z", "2026-07-01Z", "x2026-07-01", "2026-07-01T10:30:00+24:00"} {
		if _, _, err := ParseTime(s); !errors.Is(err, errMoment) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"2026-13-01": "is no date and time: month out of range", "2026-02-29": "is no date and time: day out of range",
		"2026-07-01T24:00Z": "is no date and time: hour out of range", "2026-07-01T10:60Z": "is no date and time: minute out of range",
		"1970-01-01T00:00+01:00": "is not between 1970 and 9999",
	} {
		if _, _, err := ParseTime(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	for s, want := range map[string]string{
		"2026-07-01":       "has no offset: write 2026-07-01T00:00:00Z for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z",
		"2026-07-01 10:30": "has no offset: write 2026-07-01T10:30:00Z for UTC, or the offset of your time zone on that day, such as +01:00, in the place of Z",
	} {
		if _, err := ParseZonedTime(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
}
