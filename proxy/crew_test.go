package proxy

import (
	"sync"
	"testing"
	"time"
)

// Who has nothing to do is kept for a while, and sent home then.
func TestACrewGoesHome(t *testing.T) {
	noLeak(t)
	c := newCrew()
	var done sync.WaitGroup
	hold := make(chan struct{})
	const jobs = 3 * crewIdle
	for range jobs {
		done.Add(1)
		c.do(func() { <-hold; done.Done() })
	}
	close(hold)
	done.Wait()
	wait := func(n int32) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); c.idle.Load() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d are idle, want %d", c.idle.Load(), n)
			}
		}
	}
	wait(crewIdle)
	c.trim()
	wait(crewIdle) // they have just come
	done.Add(1)
	c.do(done.Done)
	done.Wait()
	c.trim()
	wait(1) // the one who had something to do
	c.trim()
	c.trim()
	wait(0)
	c.stop()
}
