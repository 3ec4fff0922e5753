package logging

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Writer is an io.Writer that never blocks and never fails. One goroutine writes
// the queued lines. If the queue is full, or the underlying writer fails, a line
// is dropped and counted. Safe for concurrent use.
//
// If the underlying writer is stderr, the program must ignore SIGPIPE, or the Go
// runtime ends it at the first write after the reader has gone.
type Writer struct {
	w       io.Writer
	lines   chan []byte
	done    chan struct{} // closed when the goroutine has ended
	dropped atomic.Uint64

	mu     sync.RWMutex
	closed bool // lines is closed; guarded by mu
}

// NewWriter returns a Writer to w whose queue holds capacity lines. One
// goroutine at a time uses w, until Close.
func NewWriter(w io.Writer, capacity int) *Writer {
	q := &Writer{
		w:     w,
		lines: make(chan []byte, capacity),
		done:  make(chan struct{}),
	}
	go q.run()
	return q
}

// Write queues a copy of line, or drops it. It always returns len(line), nil.
func (q *Writer) Write(line []byte) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		q.dropped.Add(1)
		return len(line), nil
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// Dropped returns the number of lines lost since the start.
func (q *Writer) Dropped() uint64 { return q.dropped.Load() }

// Close writes out the queue. If ctx ends first, it drops the rest and returns
// the error of ctx; a write that hangs stays behind. Later lines are dropped. A
// second Close waits like the first.
func (q *Writer) Close(ctx context.Context) error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
	}
	for range q.lines {
		q.dropped.Add(1)
	}
	return fmt.Errorf("flushing the log: %w", ctx.Err())
}

func (q *Writer) run() {
	defer close(q.done)
	torn := false // the last line was cut short
	for line := range q.lines {
		if torn {
			// End the line that was cut short, to keep this one intact.
			line = append([]byte{'\n'}, line...)
		}
		n, err := q.w.Write(line)
		if err == nil && n < len(line) {
			err = io.ErrShortWrite
		}
		if err == nil {
			torn = false
			continue
		}
		q.dropped.Add(1)
		torn = n > 0 && n < len(line) || torn && n == 0
	}
}
