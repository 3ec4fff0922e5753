// Package watch notices that files have changed.
//
// It polls: certbot and Kubernetes swap a symbolic link somewhere in the path,
// and network file systems send no events.
package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Every is how often files are checked. A change counts once two checks in a row
// have seen the same, so that no half-written file is read.
const Every = 2 * time.Second

// Watcher watches sets of files. Add must be called before Run; Trigger may be
// called at any time and from any goroutine.
type Watcher struct {
	every time.Duration
	sets  []*set
	wake  chan struct{}

	mu      sync.Mutex
	waiting chan struct{} // closed after the next read; nil if none is asked for
}

// set is a set of files that are read together.
type set struct {
	paths  []string
	reload func() error
	// loaded is the state when the files were read, last that of the last check.
	loaded, last state
}

// New makes a watcher that checks its files at that interval.
func New(every time.Duration) *Watcher {
	return &Watcher{every: every, wake: make(chan struct{}, 1)}
}

// Add watches files and directories, including the directories in those. It must
// be called before they are first read, so that no change is missed. Run's
// goroutine calls reload. If that fails, it is called again at the next change,
// or soon if file descriptors had run out.
func (w *Watcher) Add(reload func() error, paths ...string) {
	now := stateOf(paths)
	w.sets = append(w.sets, &set{paths: paths, reload: reload, loaded: now, last: now})
}

// Trigger has everything read again at once, changed or not, and closes done after that.
// Triggers that come before the read begins share it.
func (w *Watcher) Trigger() (done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(chan struct{})
		w.wake <- struct{}{}
	}
	return w.waiting
}

// Run watches until the context ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.Tick(w.every)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			for _, s := range w.sets {
				s.check()
			}
		case <-w.wake:
			w.mu.Lock()
			done := w.waiting
			w.waiting = nil // later callers of Trigger wait for another read
			w.mu.Unlock()
			for _, s := range w.sets {
				s.read(stateOf(s.paths))
			}
			close(done)
		}
	}
}

// check reads the set again if it has changed and come to rest.
func (s *set) check() {
	now := stateOf(s.paths)
	switch {
	case now == unknown:
		return
	case now == s.loaded, now != s.last:
		s.last = now
	default:
		s.read(now)
	}
}

// read notes the state before it reads the files, so that the next check sees
// changes during the read.
func (s *set) read(now state) {
	s.last, s.loaded = now, now
	if noDescriptors(s.reload()) {
		s.loaded = unknown
	}
}

// state describes files from outside: times, size, inode and rights of each, or
// that it is missing. Equal files have equal states. The time of the last change
// (ctime) tells of a file that was overwritten in place with a new content of
// the same size, and whose time was set back.
type state string

// unknown is the state of files that cannot be checked now. No others have it.
const unknown state = "unknown"

// depth is the number of directory levels that are checked: a path itself and the
// directories in it, as certificates are laid out.
const depth = 2

func stateOf(paths []string) state {
	var b strings.Builder
	for _, path := range paths {
		if err := describe(&b, path, depth); noDescriptors(err) {
			return unknown
		}
	}
	return state(b.String())
}

// describe follows symbolic links, as reading does. The error is part of the
// state, unless it is about descriptors.
func describe(b *strings.Builder, path string, deeper int) error {
	var info unix.Stat_t
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Stat(path, &info)
	}
	isDir := info.Mode&unix.S_IFMT == unix.S_IFDIR
	var entries []os.DirEntry
	if err == nil && isDir && deeper > 0 {
		entries, err = os.ReadDir(path)
	}
	if err != nil {
		fmt.Fprintf(b, "%q %v\n", path, err)
		return err
	}
	fmt.Fprintf(b, "%q %d:%d %o", path, info.Dev, info.Ino, info.Mode)
	if !isDir { // a directory's time says too much: any file that comes or goes
		fmt.Fprintf(b, " %d %d %d", info.Mtim.Nano(), info.Ctim.Nano(), info.Size)
	}
	b.WriteByte('\n')
	for _, entry := range entries {
		// Names that begin with a dot are Kubernetes' second view of the files.
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err := describe(b, filepath.Join(path, entry.Name()), deeper-1); noDescriptors(err) {
			return err
		}
	}
	return nil
}

// noDescriptors reports whether a failure has nothing to do with the files.
func noDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
