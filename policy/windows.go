package policy

import (
	"math/bits"
	"time"

	"postern/internal/text"
)

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
	if first, ok := s.next(from, limit); ok {
		w.Count, w.First = s.count(first, limit), first
		w.Last, _ = s.previous(limit.Add(-1), first.Add(-1))
	}
	// One that opens now is the first of those to come.
	if w.Open = !w.First.Equal(from) && s.running(from); w.Open {
		far := from.Add(closesWithin)
		if end := s.closes(from, r.UpTo(far)); end.Before(far) {
			w.Closes = end
		}
	}
	return w
}

// count is how often the schedule opens in [from, until). It goes day by day;
// only where a day is cut off or the clocks change it looks at single windows.
func (s *Schedule) count(from, until time.Time) int {
	aDay := bits.OnesCount64(s.hours) * bits.OnesCount64(s.minutes)
	n := 0
	for t := from; t.Before(until); {
		local := t.In(s.Zone)
		year, month, day := local.Date()
		end := time.Date(year, month, day+1, 0, 0, 0, 0, s.Zone)
		if !end.After(t) { // a day that never was
			end = t.Add(time.Hour)
		}
		whole := midnight(local) && midnight(end) && end.Sub(t) == 24*time.Hour && !end.After(until)
		switch {
		case !whole:
			n += s.countEach(t, text.Earlier(end, until))
		case s.opensOn(local):
			n += aDay
		}
		t = end
	}
	return n
}

func (s *Schedule) countEach(from, until time.Time) int {
	n := 0
	for t, ok := s.next(from, until); ok; t, ok = s.next(t.Add(time.Minute), until) {
		n++
	}
	return n
}

func midnight(local time.Time) bool {
	hour, minute, second := local.Clock()
	return hour == 0 && minute == 0 && second == 0 && local.Nanosecond() == 0
}
