package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/adhocore/gronx"
)

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// openings lists when windows open from one moment to before another.
func openings(s *Schedule, from, until time.Time) (list []string) {
	for t := from; ; {
		next := s.next(t, until)
		if !next.Before(until) {
			return list
		}
		list = append(list, next.UTC().Format("02T15:04"))
		t = next.Add(1)
	}
}

func TestBrownoutsOnTheDaysWhenClocksChange(t *testing.T) {
	for _, tt := range []struct {
		name, cron, zone string
		from, until      string // UTC
		want             string // days and times in UTC
	}{
		{"Berlin springs forward: half past two is passed over", "30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z", "28T01:30 30T00:30"},
		{"Berlin falls back: half past two comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z", "24T00:30 25T00:30 25T01:30 26T01:30"},
		{"Berlin falls back: two o'clock comes twice, three once", "0 2,3 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T12:00:00Z", "25T00:00 25T01:00 25T02:00"},
		{"New York springs forward", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", "2026-03-10T00:00:00Z", "09T06:30"},
		{"New York falls back", "30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z", "01T05:30 01T06:30 02T06:30"},
		{"Lord Howe falls back by half an hour", "*/15 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z", "04T14:00 04T14:15 04T14:30 04T14:45 04T15:00 04T15:15"},
		{"Lord Howe springs forward by half an hour", "*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z", "03T15:30 03T15:45"},
		{"Santiago springs forward at midnight", "0 0 * * *", "America/Santiago", "2026-09-05T00:00:00Z", "2026-09-08T00:00:00Z", "05T04:00 07T03:00"},
		{"Santiago falls back at midnight: the hour before comes twice", "30 23 * * *", "America/Santiago", "2026-04-04T12:00:00Z", "2026-04-06T00:00:00Z", "05T02:30 05T03:30"},
		{"Beirut springs forward at midnight", "0,30 0 29 * *", "Asia/Beirut", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z", ""},
		{"Beirut springs forward at midnight: one o'clock is there", "0 1 29 * *", "Asia/Beirut", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z", "28T22:00"},
		{"Apia skipped a day", "0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z", "29T22:00 30T22:00 31T22:00"},
		{"UTC never changes", "30 2 * * *", "UTC", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z", "28T02:30 29T02:30"},
	} {
		s, err := ParseSchedule(tt.cron, zoneOf(t, tt.zone), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(openings(s, instant(t, tt.from), instant(t, tt.until)), " "); got != tt.want {
			t.Errorf("%s: opens at %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestTheNextAndTheLastBrownout(t *testing.T) {
	for _, tt := range []struct{ cron, zone, at, next, last string }{
		{"30 0 30 3 *", "Europe/Berlin", "2026-03-29T00:10:00Z", "2026-03-29T22:30:00Z", "2025-03-29T23:30:00Z"},
		{"30 23 28 3 *", "Europe/Berlin", "2026-03-29T20:00:00Z", "2027-03-28T21:30:00Z", "2026-03-28T22:30:00Z"},
		{"0 0 1 MAR *", "UTC", "2026-02-01T12:00:00Z", "2026-03-01T00:00:00Z", "2025-03-01T00:00:00Z"},
		{"59 23 31 1 *", "UTC", "2026-12-30T12:00:00Z", "2027-01-31T23:59:00Z", "2026-01-31T23:59:00Z"},
		{"0 0 1 3 *", "America/New_York", "2026-03-01T05:00:00Z", "2026-03-01T05:00:00Z", "2026-03-01T05:00:00Z"},
		{"0 0 29 2 *", "UTC", "2026-02-28T23:59:59.5Z", "2028-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
	} {
		s, err := ParseSchedule(tt.cron, zoneOf(t, tt.zone), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		at := instant(t, tt.at)
		if got := s.next(at, at.AddDate(4, 0, 0)); !got.Equal(instant(t, tt.next)) {
			t.Errorf("%s in %s at %s: the next is %s, want %s", tt.cron, tt.zone, tt.at, got, tt.next)
		}
		if _, got := s.count(at.AddDate(-4, 0, 0), at.Add(1)); !got.Equal(instant(t, tt.last)) {
			t.Errorf("%s in %s at %s: the last is %s, want %s", tt.cron, tt.zone, tt.at, got, tt.last)
		}
	}
	never, err := ParseSchedule("0 0 31 2,4,6,9,11 *", time.UTC, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	at := instant(t, "2026-02-01T12:00:00Z")
	if limit := at.AddDate(9, 0, 0); never.next(at, limit) != limit {
		t.Error("a day that never comes has come")
	}
	if n, _ := never.count(at.AddDate(-9, 0, 0), at); n > 0 {
		t.Error("a day that never comes has been")
	}
}

// TestTheSearchEndsInFarYears guards against Time.ZoneBounds, which on
// 31 December of leap years after 2037 ends a zone before it.
func TestTheSearchEndsInFarYears(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Tokyo"} {
		for _, year := range []int{1, 1972, 2036, 2040, 2096, 2400, 9996} {
			noon, err := ParseSchedule("0 12 * * *", zoneOf(t, zone), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			from := time.Date(year, 12, 29, 0, 0, 0, 0, noon.Zone)
			if got := openings(noon, from, time.Date(year+1, 1, 3, 0, 0, 0, 0, noon.Zone)); len(got) != 5 {
				t.Errorf("%s in %d: noon comes at %s", zone, year, got)
			}
			never, err := ParseSchedule("0 0 31 2 *", noon.Zone, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			limit := from.AddDate(9, 0, 0)
			if at := never.next(from, limit); at != limit {
				t.Errorf("%s in %d: 31 February comes at %s", zone, year, at)
			}
			if n, at := never.count(from.AddDate(-8, 0, 0), from.AddDate(1, 0, 3)); n > 0 {
				t.Errorf("%s in %d: 31 February was at %s", zone, year, at)
			}
		}
	}
}

func TestABrownoutLastsInElapsedTime(t *testing.T) {
	s, err := ParseSchedule("30 1 * * *", zoneOf(t, "Europe/Berlin"), 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	far := instant(t, "2027-01-01T00:00:00Z")
	for opened, closes := range map[string]string{
		"2026-03-29T00:30:00Z": "2026-03-29T02:30:00Z", // 01:30 to 04:30 on the wall
		"2026-10-24T23:30:00Z": "2026-10-25T01:30:00Z", // 01:30 to 02:30
		"2026-06-01T23:30:00Z": "2026-06-02T01:30:00Z",
	} {
		from, until := instant(t, opened), instant(t, closes)
		for _, at := range []struct {
			t    time.Time
			want bool
		}{{from.Add(-1), false}, {from, true}, {until.Add(-1), true}, {until, false}} {
			if got := s.running(at.t); got != at.want {
				t.Errorf("running at %s is %v", at.t, got)
			}
		}
		if got := s.edge(from.Add(17*time.Second), far); !got.Equal(until) {
			t.Errorf("opened at %s it closes at %s, want %s", opened, got, closes)
		}
	}
}

func TestWindowsThatMeetAreOne(t *testing.T) {
	at := instant(t, "2026-06-10T10:07:30Z")
	limit := at.Add(24 * time.Hour)
	for _, tt := range []struct {
		cron   string
		open   time.Duration
		closes string
	}{
		{"0 10-12 * * *", time.Hour, "2026-06-10T13:00:00Z"},     // they meet
		{"0 10-12 * * *", 2 * time.Hour, "2026-06-10T14:00:00Z"}, // they overlap
		{"0 10-12 * * *", 10 * time.Minute, "2026-06-10T10:10:00Z"},
		{"0,5 10 * * *", 6 * time.Minute, "2026-06-10T10:11:00Z"},
		{"* 10 * * *", time.Minute, "2026-06-10T11:00:00Z"},
		{"* * * * *", time.Minute, "2026-06-11T10:07:30Z"}, // the limit
		{"* * * * *", 366 * 24 * time.Hour, "2026-06-11T10:07:30Z"},
	} {
		s, err := ParseSchedule(tt.cron, time.UTC, tt.open)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.edge(at, limit); !got.Equal(instant(t, tt.closes)) {
			t.Errorf("%s for %s closes at %s, want %s", tt.cron, tt.open, got, tt.closes)
		}
	}
}

// cronField is a field with the values that crontab(5) has it mean.
type cronField struct {
	text   string
	values uint64
	star   bool
}

var cronNames = [5][]string{
	3: strings.Fields("- JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
	4: strings.Fields("SUN MON TUE WED THU FRI SAT"),
}

// randomField makes a field and what it means side by side: nothing of how the
// product reads one is in it.
func randomField(r *rand.Rand, i int) cronField {
	low := []int{0, 0, 1, 1, 0}[i]
	high := []int{59, 23, 31, 12, 7}[i] // 7 is Sunday too
	write := func(v int) string {
		if names := cronNames[i]; v < len(names) && r.IntN(3) == 0 {
			return []func(string) string{strings.ToLower, strings.ToUpper}[r.IntN(2)](names[v])
		}
		return strconv.Itoa(v)
	}
	var f cronField
	add := func(from, to, step int) {
		for v := from; v <= to; v += step {
			if i == 4 {
				f.values |= 1 << (v % 7)
			} else {
				f.values |= 1 << v
			}
		}
	}
	if r.IntN(3) == 0 {
		add(low, high, 1)
		return cronField{"*", f.values, true}
	}
	if r.IntN(4) == 0 {
		step := 1 + r.IntN(high)
		add(low, []int{59, 23, 31, 12, 6}[i], step)
		return cronField{fmt.Sprintf("*/%d", step), f.values, true}
	}
	var items []string
	for range 1 + r.IntN(3) {
		from := low + r.IntN(high-low+1)
		to := from + r.IntN(high-from+1)
		switch r.IntN(3) {
		case 0:
			items = append(items, write(from))
			add(from, from, 1)
		case 1:
			items = append(items, write(from)+"-"+write(to))
			add(from, to, 1)
		case 2:
			step := 1 + r.IntN(9)
			items = append(items, fmt.Sprintf("%s-%s/%d", write(from), write(to), step))
			add(from, to, step)
		}
	}
	f.text = strings.Join(items, ",")
	return f
}

// naive knows the windows of a schedule by asking for every minute.
type naive struct {
	from, until time.Time
	opens       []time.Time
	open        time.Duration
}

func naiveWindows(due func(wall time.Time) bool, zone *time.Location, open time.Duration, from, until time.Time) naive {
	n := naive{from: from, until: until, open: open}
	for t := from; t.Before(until); t = t.Add(time.Minute) {
		if due(t.In(zone)) {
			n.opens = append(n.opens, t)
		}
	}
	return n
}

func (n naive) running(t time.Time) bool {
	return slices.ContainsFunc(n.opens, func(o time.Time) bool { return !o.After(t) && t.Before(o.Add(n.open)) })
}

// edge is the first moment after t and before limit at which running turns.
func (n naive) edge(t, limit time.Time) time.Time {
	now := n.running(t)
	best := limit
	for _, o := range n.opens {
		for _, e := range []time.Time{o, o.Add(n.open)} {
			if e.After(t) && e.Before(best) && n.running(e) != now {
				best = e
			}
		}
	}
	return best
}

// TestSchedulesAreWhatCronSays holds the search for the next and the last
// opening against a walk over every minute.
func TestSchedulesAreWhatCronSays(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut", "UTC",
		"Asia/Kathmandu", "Africa/Casablanca", "America/St_Johns", "Africa/Cairo"}
	// Days on which a clock changes in one of them.
	days := []string{"2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2026-09-06",
		"2026-02-28", "2026-03-22", "2006-10-29", "2026-04-24", "2026-10-29", "2024-02-29", "2026-12-31"}
	r := rand.New(rand.NewPCG(20261125, 4))
	cases, checked, opened := 400, 0, 0
	for range cases {
		zone := zoneOf(t, zones[r.IntN(len(zones))])
		var fields [5]cronField
		var texts []string
		for i := range fields {
			fields[i] = randomField(r, i)
			if i == 3 && r.IntN(2) == 0 { // most months pass within no test
				fields[i] = cronField{"*", 1<<13 - 2, true}
			}
			texts = append(texts, fields[i].text)
		}
		cron := strings.Join(texts, " ")
		due := func(wall time.Time) bool {
			has := func(i, v int) bool { return fields[i].values>>v&1 != 0 }
			day, week := has(2, wall.Day()), has(4, int(wall.Weekday()))
			days := day && week
			if !fields[2].star && !fields[4].star {
				days = day || week
			}
			return has(0, wall.Minute()) && has(1, wall.Hour()) && days && has(3, int(wall.Month()))
		}
		open := time.Duration(1+r.IntN(600)) * []time.Duration{time.Second, 10 * time.Second, time.Minute, 3 * time.Minute}[r.IntN(4)]
		s, err := ParseSchedule(cron, zone, open)
		if err != nil {
			t.Fatalf("%q: %v", cron, err)
		}
		day, _ := time.Parse(time.DateOnly, days[r.IntN(len(days))])
		now := day.Add(time.Duration(r.Int64N(int64(48 * time.Hour)))).Add(-12 * time.Hour)
		if r.IntN(2) == 0 {
			now = now.Truncate(time.Minute)
		}
		walk := naiveWindows(due, zone, open, now.Add(-40*time.Hour).Truncate(time.Minute), now.Add(40*time.Hour))
		opened += min(len(walk.opens), 1)
		fail := func(what string, got, want any) {
			t.Errorf("%q in %s for %s at %s: %s is %v, want %v", cron, zone, open, now.Format(time.RFC3339Nano), what, got, want)
		}

		for range 30 { // gronx says the same of a minute
			wall := now.Add(time.Duration(r.Int64N(int64(400 * 24 * time.Hour)))).In(zone).Truncate(time.Minute)
			if got, err := gronx.New().IsDue(cron, wall); err != nil || got != due(wall) {
				t.Errorf("%q: gronx says %v, %v at %s", cron, got, err, wall)
			}
			if got := s.next(wall, wall.Add(1)); got.Equal(wall) != due(wall) {
				t.Errorf("%q: opens at %s is %v", cron, wall, !due(wall))
			}
		}
		for range 20 { // from anywhere around
			at := now.Add(time.Duration(r.Int64N(int64(72*time.Hour))) - 36*time.Hour)
			next := walk.until
			var last time.Time // before that
			n := 0
			for _, o := range walk.opens {
				if o.Before(at) {
					n, last = n+1, o
				} else if next.Equal(walk.until) {
					next = o
				}
			}
			if got := s.next(at, walk.until); !got.Equal(next) {
				fail("the next opening after "+at.String(), got, next)
			}
			if got, was := s.count(walk.from, at); got != n || !was.Equal(last) {
				fail("the last opening before "+at.String(), was, last)
			}
		}
		// The walk knows of windows that opened 40 hours ago; none is longer
		// than 30.
		limit := now.Add(5 * time.Hour)
		running, edge := walk.running(now), walk.edge(now, limit)
		if got := s.running(now); got != running {
			fail("running", got, running)
		}
		if got := s.edge(now, limit); !got.Equal(edge) {
			fail("the next change", got, edge)
		}
		if running {
			checked++
		}
	}
	if checked < cases/10 || opened < cases/3 {
		t.Errorf("of %d schedules only %d were running and %d opened at all", cases, checked, opened)
	}
}

func TestADayOfTheMonthOrOfTheWeekWillDo(t *testing.T) {
	for _, tt := range []struct{ cron, want string }{
		{"0 0 13 * FRI", "03 10 13 17 24 31"}, // crontab(5): either
		{"0 0 13 * *", "13"},
		{"0 0 * * FRI", "03 10 17 24 31"},
		{"0 0 */10 * FRI", "31"}, // a field that begins with * restricts nothing: both
		{"0 0 13 * */7", ""},     // Sundays
		{"0 0 1-7 JUL 7", "01 02 03 04 05 06 07 12 19 26"},
		{"0 0 5,6 jul sat-7", "04 05 06 11 12 18 19 25 26"},
	} {
		s, err := ParseSchedule(tt.cron, time.UTC, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range openings(s, instant(t, "2026-07-01T00:00:00Z"), instant(t, "2026-08-01T00:00:00Z")) {
			got = append(got, o[:2])
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: opens in July 2026 on %s, want %s", tt.cron, got, tt.want)
		}
	}
}

func TestInvalidSchedules(t *testing.T) {
	for cron, want := range map[string]string{
		"":                   "not five fields",
		"* * * *":            "not five fields",
		"* * * * * *":        "not five fields",
		"@daily":             "not five fields",
		"60 * * * *":         "minute",
		"1,99 * * * *":       "minute", // on no clock a fault of another minute
		"99/5 * * * *":       "minute",
		"50-70/5 * * * *":    "minute",
		"*/0 * * * *":        "minute",
		"5-1 * * * *":        "minute",
		"1,,2 * * * *":       "minute",
		"1, * * * *":         "minute",
		"-1 * * * *":         "minute",
		"+1 * * * *":         "minute",
		"1.5 * * * *":        "minute",
		"*-5 * * * *":        "minute",
		"*/ * * * *":         "minute",
		"? * * * *":          "minute",
		"MON * * * *":        "minute",
		"0 24 * * *":         "hour",
		"0 23/30,24/1 * * *": "hour",
		"0 0 0 * *":          "day of the month",
		"0 0 0/5 * *":        "day of the month",
		"0 0 32 * *":         "day of the month",
		"0 0 32/2 * *":       "day of the month",
		"0 0 L * *":          "day of the month",
		"0 0 15W * *":        "day of the month",
		"0 0 JAN * *":        "day of the month",
		"0 0 * 0 *":          "month",
		"0 0 * 0/3 *":        "month",
		"0 0 * 13 *":         "month",
		"0 0 * JANUARY *":    "month",
		"0 0 * MON *":        "month",
		"0 0 * * 8":          "day of the week",
		"0 0 * * 9/2":        "day of the week",
		"0 0 * * MON#1":      "day of the week",
		"0 0 * * 5L":         "day of the week",
		"0 0 * * FRI-MON":    "day of the week",
		"0 0 * * 1MON":       "day of the week",
	} {
		if _, err := ParseSchedule(cron, time.UTC, time.Minute); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want something about the %s", cron, err, want)
		}
	}
}
