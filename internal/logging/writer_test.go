package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a stderr whose reader has stopped reading.
type stuck struct {
	release chan struct{}
	got     bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	return s.got.Write(p)
}

func write(t *testing.T, w io.Writer, line string) {
	t.Helper()
	if n, err := io.WriteString(w, line); n != len(line) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
}

func TestLinesArriveInOrder(t *testing.T) {
	var got, want bytes.Buffer
	q := NewWriter(&got, 1000)
	for i := range 1000 {
		write(t, q, fmt.Sprintf("line %d\n", i))
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got.String() != want.String() || q.Dropped() != 0 {
		t.Errorf("%d bytes, want %d; dropped %d", got.Len(), want.Len(), q.Dropped())
	}
}

func TestCallersBufferIsCopied(t *testing.T) {
	s := &stuck{release: make(chan struct{})}
	q := NewWriter(s, 4)
	line := []byte("first\n")
	q.Write(line)
	copy(line, "other\n")
	close(s.release)
	q.Close(t.Context())
	if s.got.String() != "first\n" {
		t.Errorf("got %q", s.got.String())
	}
}

func TestAStuckStderrDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{release: make(chan struct{})}
		q := NewWriter(s, 10)
		write(t, q, "in hand\n")
		synctest.Wait() // the goroutine holds the first line
		start := time.Now()
		for range 25 {
			write(t, q, "queued\n")
		}
		if q.Dropped() != 15 {
			t.Errorf("dropped %d lines, want 15", q.Dropped())
		}

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := q.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Close took %v", d)
		}
		if q.Dropped() != 25 {
			t.Errorf("dropped %d lines, want all 25 of the queue", q.Dropped())
		}
		write(t, q, "too late\n")
		if q.Dropped() != 26 {
			t.Errorf("a line after Close is not counted: %d", q.Dropped())
		}
		close(s.release)
		if err := q.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if s.got.String() != "in hand\n" {
			t.Errorf("got %q", s.got.String())
		}
	})
}

func TestAClosedStderrOnlyCounts(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	q := NewWriter(w, 100)
	for range 100 {
		write(t, q, "nobody reads this\n")
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q.Dropped() != 100 {
		t.Errorf("dropped %d, want 100", q.Dropped())
	}
}

// flaky takes as many bytes of each write as it is told.
type flaky struct {
	take []int
	got  bytes.Buffer
}

func (f *flaky) Write(p []byte) (int, error) {
	n := len(p)
	if len(f.take) > 0 {
		n, f.take = min(n, f.take[0]), f.take[1:]
	}
	f.got.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func TestALineCutByAFullDiskSpoilsNoOther(t *testing.T) {
	f := &flaky{take: []int{99, 3, 0}}
	q := NewWriter(f, 10)
	for _, line := range []string{"one\n", "two cut\n", "three lost\n", "four\n", "five\n"} {
		write(t, q, line)
	}
	q.Close(t.Context())
	if want := "one\ntwo\nfour\nfive\n"; f.got.String() != want || q.Dropped() != 2 {
		t.Errorf("got %q, want %q; dropped %d, want 2", f.got.String(), want, q.Dropped())
	}
}

func TestEveryLineIsWrittenOrCounted(t *testing.T) {
	var got bytes.Buffer
	q := NewWriter(&got, 8)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				io.WriteString(q, "x\n")
			}
		})
	}
	time.AfterFunc(time.Millisecond, func() { q.Close(context.Background()) })
	wg.Wait()
	q.Close(t.Context())
	if lines := uint64(bytes.Count(got.Bytes(), []byte("\n"))); lines+q.Dropped() != 8000 {
		t.Errorf("%d written and %d dropped of 8000", lines, q.Dropped())
	}
}
