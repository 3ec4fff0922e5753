package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress is one line on a terminal that is written again and again, and removed
// at the end. Nil writes nothing.
type progress struct {
	w     io.Writer
	mu    sync.Mutex
	shown bool
}

// progress returns a progress on stderr, if that is a terminal.
func (sys system) progress() *progress {
	if f, ok := sys.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progress{w: f}
	}
	return nil
}

func (p *progress) say(format string, args ...any) {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.shown = true
		fmt.Fprintf(p.w, "\r"+format+"\x1b[K", args...)
	}
}

// share is of the ledger that has been read.
func (p *progress) share(done float64) { p.say("reading the ledger: %.0f %%", 100*done) }

func (p *progress) clear() {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.shown {
			fmt.Fprint(p.w, "\r\x1b[K")
		}
		p.shown = false
	}
}

// waiting says every second for how long, until stop is called.
func (p *progress) waiting(what string) (stop func()) {
	if p == nil {
		return func() {}
	}
	begun, tick, done := time.Now(), time.NewTicker(time.Second), make(chan struct{})
	var said sync.WaitGroup
	said.Go(func() {
		for {
			select {
			case <-tick.C:
				p.say("%s: %d s", what, int(time.Since(begun).Seconds()))
			case <-done:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		tick.Stop()
		close(done)
		said.Wait()
		p.clear()
	})
}

// behind writes once something has ended.
type behind struct {
	io.Writer
	ended func()
}

func (b *behind) Write(p []byte) (int, error) {
	b.ended()
	return b.Writer.Write(p)
}
