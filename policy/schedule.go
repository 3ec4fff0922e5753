package policy

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a static image has no time zones of its own

	"github.com/adhocore/gronx"

	"postern/internal/text"
)

// Schedule is a window that opens at certain wall-clock minutes, and stays open
// for a while. A minute that does not exist, when clocks go forward, opens
// none; one that comes twice, when they go back, opens two. How long it stays
// open is elapsed time, whatever the clocks do.
type Schedule struct {
	// Cron is the five-field expression: minute, hour, day of the month, month,
	// day of the week.
	Cron string
	For  time.Duration
	Zone *time.Location

	minutes, hours, days, months, weekdays uint64 // a bit for each value
	// anyDay: day of the month and day of the week are both restricted, so that
	// either will do (crontab(5)).
	anyDay bool
}

// MarshalText is the expression.
func (s *Schedule) MarshalText() ([]byte, error) { return []byte(s.Cron), nil }

// cronFields describes the five fields to gronx, which counts seconds too.
var cronFields = []struct {
	name     string
	min, max int
	names    func() *regexp.Regexp
}{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day of the month", 1, 31, nil},
	{"month", 1, 12, form(`(?i)\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\b`)},
	{"day of the week", 0, 7, form(`(?i)\b(sun|mon|tue|wed|thu|fri|sat)\b`)},
}

// cronMoment is a moment at which a field has that value.
func cronMoment(i, v int) time.Time {
	at := [...]int{0, 0, 1, 1, 0}
	at[i] = v
	// 1 January 2023 was a Sunday; so is the seventh day after it.
	return time.Date(2023, time.Month(at[3]), at[2]+at[4], at[1], at[0], 0, 0, time.UTC)
}

// cronItem is an entry of a field's list, names aside; it finds the first value.
var cronItem = form(`^(?:\*|(\d{1,2})(?:-\d{1,2})?)(?:/\d{1,2})?$`)

// maxCron bounds a cron expression, in bytes: all sixty minutes one by one take 169.
const maxCron = 1024

var errNotFive = errors.New("not five fields: write minute, hour, day of the month, month, day of the week, as in 0 8 * * 1-5")

// ParseSchedule compiles a five-field cron expression in a time zone.
func ParseSchedule(cron string, zone *time.Location, open time.Duration) (*Schedule, error) {
	if len(cron) > maxCron {
		return nil, fmt.Errorf("longer than %d bytes, the most", maxCron)
	}
	fields := strings.Fields(cron)
	if len(fields) != len(cronFields) {
		return nil, errNotFive
	}
	s := &Schedule{Cron: strings.Join(fields, " "), For: open, Zone: zone}
	for i, set := range []*uint64{&s.minutes, &s.hours, &s.days, &s.months, &s.weekdays} {
		var err error
		if *set, err = cronSet(i, fields[i]); err != nil {
			return nil, err
		}
	}
	s.anyDay = fields[2][0] != '*' && fields[4][0] != '*'
	return s, nil
}

// cronSet asks gronx which values of a field match. Each entry of the list is
// asked for every value: gronx finds a fault only where it comes to it.
func cronSet(i int, field string) (set uint64, err error) {
	f := cronFields[i]
	for item := range strings.SplitSeq(field, ",") {
		plain := item
		if f.names != nil {
			plain = f.names().ReplaceAllString(item, "1")
		}
		parts := cronItem().FindStringSubmatch(plain)
		if parts == nil {
			return 0, fmt.Errorf("%s: not an entry of a cron field: %q: write *, 5, 1-5, */10 or several with commas", f.name, clip(item))
		}
		// gronx takes 99/5 for a minute, and 0/5 for a day of the month.
		if first, err := strconv.Atoi(parts[1]); err == nil && (first < f.min || first > f.max) {
			return 0, fmt.Errorf("%s: %q is out of its range: use %d to %d", f.name, clip(item), f.min, f.max)
		}
		segments, err := gronx.Segments(strings.Repeat("* ", i) + item + strings.Repeat(" *", len(cronFields)-1-i))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.name, err)
		}
		var checker gronx.SegmentChecker
		for v := f.min; v <= f.max; v++ {
			checker.SetRef(cronMoment(i, v))
			due, err := checker.CheckDue(segments[1+i], 1+i)
			if err != nil && strings.Contains(item, "-") {
				return 0, fmt.Errorf("%s: %q is out of its range, or ends before it begins: past the end write two, as in fri-sat,sun-mon or 22-23,0-6", f.name, clip(item))
			} else if err != nil {
				return 0, fmt.Errorf("%s: %q is out of its range: use %d to %d", f.name, clip(item), f.min, f.max)
			}
			if due {
				set |= 1 << v
			}
		}
	}
	return set, nil
}

// opensOn reports whether the day may have an opening.
func (s *Schedule) opensOn(local time.Time) bool {
	_, month, day := local.Date()
	inMonth, inWeek := s.days>>day&1 != 0, s.weekdays>>local.Weekday()&1 != 0
	return s.months>>month&1 != 0 && (inMonth && inWeek || s.anyDay && (inMonth || inWeek))
}

// next is the first opening at t or later, or limit where none comes before that.
func (s *Schedule) next(t, limit time.Time) time.Time {
	for t = wholeMinute(t); t.Before(limit); {
		local := t.In(s.Zone)
		hour, minute := local.Hour(), local.Minute()
		var skip int // minutes to what may match
		switch {
		case s.months>>local.Month()&1 == 0:
			// To the 29th, or the next month: every month has 28 days.
			skip = (24*max(1, 29-local.Day())-hour)*60 - minute
		case !s.opensOn(local):
			skip = (24-hour)*60 - minute
		case s.hours>>hour&1 == 0:
			skip = 60 - minute
		default:
			left := s.minutes >> minute
			if left&1 != 0 {
				return t
			}
			skip = min(60-minute, bits.TrailingZeros64(left))
		}
		t = t.Add(time.Duration(skip) * time.Minute)
		// Where the clocks change meanwhile, go on from there. On 31 December of
		// leap years beyond its tables the time package names a moment gone by.
		if _, end := local.ZoneBounds(); end.After(local) && end.Before(t) {
			t = wholeMinute(end.UTC())
		}
	}
	return limit
}

// wholeMinute is the first whole minute at t or later.
func wholeMinute(t time.Time) time.Time { return t.Add(time.Minute - 1).Truncate(time.Minute) }

// opened is the first opening whose window is open at t; later than t where none is.
func (s *Schedule) opened(t time.Time) time.Time { return s.next(t.Add(1-s.For), t.Add(1)) }

// running reports whether a window is open at t.
func (s *Schedule) running(t time.Time) bool { return !s.opened(t).After(t) }

// edge is the first moment after t at which a window opens or closes, or limit.
// Windows that meet are one.
func (s *Schedule) edge(t, limit time.Time) time.Time {
	open := s.opened(t)
	if open.After(t) {
		return s.next(t, limit)
	}
	for {
		closes := open.Add(s.For)
		if !closes.Before(limit) {
			return limit
		}
		again, end := open.Add(time.Minute), closes.Add(1)
		open = s.next(text.Later(again, closes.Truncate(time.Minute)), end)
		if open.After(closes) { // none opens as late as can be
			open = s.next(again, end)
		}
		if open.After(closes) {
			return closes
		}
	}
}

// Windows are those of a schedule between two times.
type Windows struct {
	// Count is how many open, the first of them at First and the last at Last.
	// Windows that overlap count each.
	Count int       `json:"count"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// Until is where the counting ends: the end of the rule or of the timeline.
	Until time.Time `json:"-"`
	// Open: one has opened before and is open still. It closes at Closes, which
	// is zero where that is further away than two days.
	Open   bool      `json:"open"`
	Closes time.Time `json:"closes,omitzero"`
}

// closesWithin is how far ahead the end of an open window is looked for.
const closesWithin = 48 * time.Hour

// windows are those of the rule from a time within its dates on.
func (r *Rule) windows(from, limit time.Time) *Windows {
	limit = r.UpTo(limit)
	s := r.Schedule
	w := &Windows{Until: limit}
	if first := s.next(from, limit); first.Before(limit) {
		w.First = first
		w.Count, w.Last = s.count(first, limit)
	}
	// One that opens now is the first of those to come.
	if w.Open = !w.First.Equal(from) && s.running(from); w.Open {
		far := from.Add(closesWithin)
		if end := s.edge(from, r.UpTo(far)); end.Before(far) {
			w.Closes = end
		}
	}
	return w
}

// count is how often the schedule opens in [from, until), and when it does last. It goes
// day by day; only where a day is cut off or the clocks change it looks at single windows.
func (s *Schedule) count(from, until time.Time) (n int, last time.Time) {
	aDay := bits.OnesCount64(s.hours) * bits.OnesCount64(s.minutes)
	lastOfDay := time.Duration(bits.Len64(s.hours)-1)*time.Hour + time.Duration(bits.Len64(s.minutes)-1)*time.Minute
	for t := from; t.Before(until); {
		local := t.In(s.Zone)
		year, month, day := local.Date()
		begin, end := time.Date(year, month, day, 0, 0, 0, 0, s.Zone), time.Date(year, month, day+1, 0, 0, 0, 0, s.Zone)
		if !end.After(t) { // a day that never was
			end = t.Add(time.Hour)
		}
		switch whole := t.Equal(begin) && end.Sub(begin) == 24*time.Hour && !end.After(until); {
		case !whole:
			stop := text.Earlier(end, until)
			for t = s.next(t, stop); t.Before(stop); t = s.next(t.Add(time.Minute), stop) {
				n, last = n+1, t
			}
		case s.opensOn(local):
			n, last = n+aDay, t.Add(lastOfDay)
		}
		t = end
	}
	return n, last.UTC()
}
