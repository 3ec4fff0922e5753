package memory

import (
	"testing"
	"time"
)

func TestSmallHeapsMayGrowByAFixedAmountAndLargeOnesByAPart(t *testing.T) {
	for _, c := range []struct {
		name        string
		live, roots uint64
		want        int
	}{
		{"before the first collection", 0, 0, 200},
		{"an empty proxy", 2 * mb, 1 * mb, 200},
		{"under load", 4 * mb, 1 * mb, 160},
		{"a thousand sessions", 6 * mb, 2 * mb, 100},
		{"many sessions", 100 * mb, 50 * mb, 75},
	} {
		if got := percentFor(reading{live: c.live, roots: c.roots}); got != c.want {
			t.Errorf("%s: %d %%, want %d", c.name, got, c.want)
		}
	}
}

// clock gives a keeper one reading a second.
type clock struct {
	k    keeper
	r    reading
	took time.Duration
}

func newClock(r reading) *clock {
	r.at = time.Unix(0, 0)
	return &clock{k: keeper{last: r, goroutines: r.goroutines, sessions: r.sessions}, r: r, took: 10 * time.Millisecond}
}

// seconds passes that many of them, in each of which so much is allocated and
// then happens what change says, and counts how often memory is handed back.
func (c *clock) seconds(n int, allocated uint64, change func(r *reading)) (handed int) {
	for range n {
		c.r.at = c.r.at.Add(time.Second)
		c.r.allocated += allocated
		c.r.objects += allocated
		c.r.mapped += allocated
		if change != nil {
			change(&c.r)
		}
		if c.k.due(c.r) {
			handed++
			c.r.mapped -= c.r.free + c.r.objects - c.r.live
			c.r.free, c.r.objects = 0, c.r.live
			c.r.cycles += 2
			c.k.handed(c.r, c.took)
		}
	}
	return handed
}

func emptyProxy() reading {
	return reading{live: 2 * mb, objects: 2 * mb, roots: mb, stacks: mb, mapped: 8 * mb, goroutines: 20}
}

func TestNothingIsHandedBackWhileNothingGoesOn(t *testing.T) {
	c := newClock(emptyProxy())
	if n := c.seconds(3600, 1000, nil); n != 0 {
		t.Errorf("%d times in an hour", n)
	}
}

func TestGarbageOfABurstIsHandedBackOnce(t *testing.T) {
	c := newClock(emptyProxy())
	if n := c.seconds(1, 20*mb, nil); n != 0 {
		t.Error("handed back in the midst of it")
	}
	if n := c.seconds(1, 0, nil); n != 1 {
		t.Error("not handed back in the second after it")
	}
	if n := c.seconds(600, 1000, nil); n != 0 {
		t.Errorf("%d times more", n)
	}
}

func TestNothingIsHandedBackUnderSteadyLoad(t *testing.T) {
	c := newClock(emptyProxy())
	n := c.seconds(3600, 10*mb, func(r *reading) {
		if r.objects > 24*mb { // a collection
			r.free, r.objects = r.free+r.objects-r.live, r.live
			r.cycles++
		}
		if over := r.free; over > 0 { // used again
			r.free, r.mapped = 0, r.mapped-over
		}
	})
	if n != 0 {
		t.Errorf("%d times in an hour", n)
	}
}

// A load that comes and goes every other second does not have the process
// collect every other second.
func TestHandingBackRests(t *testing.T) {
	for _, x := range []struct {
		took time.Duration
		most int
	}{{10 * time.Millisecond, 100 / 5}, {time.Second, 100 / 20}} {
		c := newClock(emptyProxy())
		c.took = x.took
		n := 0
		for range 50 {
			n += c.seconds(1, 20*mb, nil) + c.seconds(1, 0, nil)
		}
		if n < 2 || n > x.most {
			t.Errorf("taking %v: %d times in 100 s, want at most %d", x.took, n, x.most)
		}
	}
}

// many is a proxy with silent sessions, some of which have a goroutine.
var many = reading{live: 30 * mb, objects: 31 * mb, roots: 20 * mb, stacks: 20 * mb, mapped: 80 * mb, goroutines: 4000, sessions: 5000}

// Sessions that end allocate next to nothing, so that there is no collection,
// and all they held looks live.
func TestMemoryOfClosedSessionsIsReturned(t *testing.T) {
	c := newClock(many)
	if n := c.seconds(60, 1000, nil); n != 0 {
		t.Error("handed back while they are there")
	}
	if n := c.seconds(1, 1000, func(r *reading) { r.sessions = 4500 }); n != 0 {
		t.Error("handed back for a tenth of them")
	}
	if n := c.seconds(1, 1000, func(r *reading) { r.sessions = 10 }); n != 1 {
		t.Error("not handed back when they had left")
	}
}

// A session that is silent stays without its goroutine.
func TestStacksOfGoroutinesThatAreGoneAreHandedBack(t *testing.T) {
	c := newClock(many)
	if n := c.seconds(1, 1000, func(r *reading) { r.goroutines = 3600 }); n != 0 {
		t.Error("handed back for a tenth of them")
	}
	if n := c.seconds(1, 1000, func(r *reading) { r.goroutines = 20 }); n != 1 {
		t.Error("not handed back when they had gone")
	}
}

// A collection while sessions leave has found a part of them alive.
func TestACollectionWhileSessionsLeaveIsNotTheLastWord(t *testing.T) {
	c := newClock(many)
	c.seconds(1, 1000, nil)
	n := c.seconds(1, 1000, func(r *reading) { r.cycles, r.sessions = r.cycles+1, 500 })
	if n != 1 {
		t.Error("not handed back")
	}
}

// Where much is in use, little is not worth a collection.
func TestAnEighthOfTheMemoryIsWorthIt(t *testing.T) {
	c := newClock(reading{live: 60 * mb, objects: 60 * mb, mapped: 100 * mb, goroutines: 10_000})
	if n := c.seconds(1, 12*mb, nil) + c.seconds(10, 0, nil); n != 0 {
		t.Error("handed back 12 MB of 112")
	}
	if n := c.seconds(1, 4*mb, nil) + c.seconds(10, 0, nil); n != 1 {
		t.Error("not handed back 16 MB of 116")
	}
}
