package main

import (
	"context"
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

// write puts a line in the place of what is there; an empty one removes it.
func (p *progress) write(line string) {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if line != "" || p.shown {
			fmt.Fprint(p.w, "\r"+line+"\x1b[K")
		}
		p.shown = line != ""
	}
}

func (p *progress) say(format string, args ...any) { p.write(fmt.Sprintf(format, args...)) }

// share is of the ledger that has been read.
func (p *progress) share(done float64) { p.say("reading the ledger: %.0f %%", 100*done) }

func (p *progress) clear() { p.write("") }

// waiting says every second for how long, until stop is called.
func (p *progress) waiting(what string) (stop func()) {
	waits, cancel := context.WithCancel(context.Background())
	var said sync.WaitGroup
	said.Go(func() {
		begun := time.Now()
		for tick := time.Tick(time.Second); waits.Err() == nil; {
			select {
			case <-tick:
				p.say("%s: %d s", what, int(time.Since(begun).Seconds()))
			case <-waits.Done():
			}
		}
	})
	return func() {
		cancel()
		said.Wait()
		p.clear()
	}
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
