package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// watched runs a watcher of one set under a fake clock. ticks lets so many
// checks pass and returns how often the set was read meanwhile.
type watched struct {
	*Watcher
	mu    sync.Mutex
	reads int
	err   error
}

func (w *watched) reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	return w.err
}

// fail makes reads fail from now on, or not any longer.
func (w *watched) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *watched) ticks(n int) int {
	time.Sleep(time.Duration(n) * Every)
	return w.read()
}

// read lets the watcher do what is due, and returns and forgets its reads.
func (w *watched) read() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.reads
	w.reads = 0
	return n
}

func run(t *testing.T, paths []string, test func(t *testing.T, w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{Watcher: New(Every)}
		w.Add(w.reload, paths...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			w.Run(ctx)
			close(done)
		}()
		// Off the tick, so that checks fall between what the test does.
		time.Sleep(Every / 2)
		test(t, w)
		cancel()
		<-done
	})
}

func expect(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: read %d times, want %d", what, got, want)
	}
}

func TestAChangeIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	for name, change := range map[string]func(){
		"written in place": func() { write(t, file, "longer text") },
		"same size and later": func() {
			write(t, file, "TEXT")
			must(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)))
		},
		"renamed over, with the old time and size": func() {
			info, err := os.Stat(file)
			must(t, err)
			write(t, file+".new", "TEXT")
			must(t, os.Chtimes(file+".new", info.ModTime(), info.ModTime()))
			must(t, os.Rename(file+".new", file))
		},
		"overwritten, with the old time and size": func() {
			info, err := os.Stat(file)
			must(t, err)
			write(t, file, "TEXT")
			must(t, os.Chtimes(file, info.ModTime(), info.ModTime()))
		},
		"removed":       func() { must(t, os.Remove(file)) },
		"made readable": func() { must(t, os.Chmod(file, 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			write(t, file, "text")
			must(t, os.Chmod(file, 0o600))
			run(t, []string{file}, func(t *testing.T, w *watched) {
				expect(t, "without a change", w.ticks(5), 0)
				change()
				expect(t, "at the first check", w.ticks(1), 0)
				expect(t, "after it", w.ticks(5), 1)
			})
		})
	}
}

func TestSwappedSymbolicLinksAreSeen(t *testing.T) {
	dir := t.TempDir()
	link := func(target, name string) {
		must(t, os.Symlink(target, filepath.Join(dir, "tmp")))
		must(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, name)))
	}
	// As certbot does it, and as Kubernetes does it.
	write(t, filepath.Join(dir, "archive/cert1.pem"), "one")
	write(t, filepath.Join(dir, "archive/cert2.pem"), "two")
	link("archive/cert1.pem", "cert.pem")
	write(t, filepath.Join(dir, "mount/..2026_01/tls.crt"), "one")
	write(t, filepath.Join(dir, "mount/..2026_02/tls.crt"), "two")
	link("..2026_01", "mount/..data")
	link("..data/tls.crt", "mount/tls.crt")
	for name, test := range map[string]struct {
		path   string
		change func()
	}{
		"the link to the file":       {"cert.pem", func() { link("archive/cert2.pem", "cert.pem") }},
		"a link in the path":         {"mount/tls.crt", func() { link("..2026_02", "mount/..data") }},
		"a link inside a directory":  {"mount", func() { link("..2026_01", "mount/..data") }},
		"a file below the directory": {".", func() { write(t, filepath.Join(dir, "archive/cert3.pem"), "three") }},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a link inside a directory" {
				link("..2026_02", "mount/..data")
			}
			run(t, []string{filepath.Join(dir, test.path)}, func(t *testing.T, w *watched) {
				expect(t, "without a change", w.ticks(3), 0)
				test.change()
				expect(t, "after it", w.ticks(3), 1)
			})
		})
	}
}

func TestAFileThatGrowsIsNotReadHalf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	run(t, []string{file}, func(t *testing.T, w *watched) {
		for i := range 10 {
			write(t, file, fmt.Sprintf("%*d", i+1, i))
			expect(t, "while it grows", w.ticks(1), 0)
		}
		expect(t, "at rest", w.ticks(3), 1)
	})
}

// TestAFileTakenAwayAndBackIsReadOnce: a rename changes its ctime.
func TestAFileTakenAwayAndBackIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	file, aside := filepath.Join(dir, "file"), filepath.Join(dir, "aside")
	write(t, file, "text")
	run(t, []string{file}, func(t *testing.T, w *watched) {
		must(t, os.Rename(file, aside))
		expect(t, "for one check", w.ticks(1), 0)
		must(t, os.Rename(aside, file))
		expect(t, "back again", w.ticks(5), 1)
	})
}

func TestAFailedReadIsTriedAgainAtTheNextChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "text")
	run(t, []string{file}, func(t *testing.T, w *watched) {
		w.fail(errors.New("broken"))
		write(t, file, "broken")
		expect(t, "broken", w.ticks(10), 1)
		write(t, file, "broken still")
		expect(t, "broken still", w.ticks(10), 1)
		w.fail(nil)
		write(t, file, "whole again")
		expect(t, "whole again", w.ticks(10), 1)
	})
}

func TestOutOfDescriptorsIsTriedAgainSoon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "text")
	run(t, []string{file}, func(t *testing.T, w *watched) {
		w.fail(fmt.Errorf("reading: %w", &os.PathError{Op: "open", Path: file, Err: syscall.EMFILE}))
		write(t, file, "other text")
		expect(t, "without descriptors", w.ticks(6), 5)
		w.fail(nil)
		expect(t, "with descriptors", w.ticks(6), 1)
	})
}

func TestTriggerReadsAtOnceAndAStormCountsAsFew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "text")
	run(t, []string{file}, func(t *testing.T, w *watched) {
		w.Trigger()
		expect(t, "triggered", w.read(), 1)
		w.mu.Lock() // holds the first read up, so that all others come before it ends
		first := w.Trigger()
		var last <-chan struct{}
		for range 100 {
			last = w.Trigger()
		}
		select {
		case <-first:
			t.Error("the first trigger counts as done before anything is read")
		case <-last:
			t.Error("the last trigger counts as done before anything is read")
		default:
		}
		w.mu.Unlock()
		<-last
		if n := w.read(); n < 1 || n > 2 {
			t.Errorf("a hundred triggers: read %d times", n)
		}
		write(t, file, "other text")
		<-w.Trigger()
		expect(t, "changed and triggered", w.read(), 1)
		expect(t, "what the trigger has read", w.ticks(5), 0)
	})
}

func TestATriggerBeforeRunIsKept(t *testing.T) {
	w := New(time.Hour)
	read := make(chan struct{})
	w.Add(func() error { close(read); return nil })
	w.Trigger()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go w.Run(ctx)
	select {
	case <-read:
	case <-ctx.Done():
		t.Error("not read")
	}
}
