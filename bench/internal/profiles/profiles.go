// Package profiles takes profiles of a running Postern over its admin port.
package profiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/pprof/profile"
)

// CPU profiles a process in pieces of a second, since it must be told how long
// a profile is before anybody knows how long the work takes.
type CPU struct {
	cancel context.CancelFunc
	done   chan struct{}
	pieces []*profile.Profile
	err    error
}

// StartCPU begins to profile what serves /debug/pprof/ at addr.
func StartCPU(addr string) *CPU {
	ctx, cancel := context.WithCancel(context.Background())
	p := &CPU{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for { // at least one
			piece, err := fetch(addr, "profile?seconds=1")
			if err != nil {
				p.err = err
				return
			}
			p.pieces = append(p.pieces, piece)
			if ctx.Err() != nil {
				return
			}
		}
	}()
	return p
}

// Stop ends with the piece that is being taken and returns them as one.
func (p *CPU) Stop() (*profile.Profile, error) {
	p.cancel()
	<-p.done
	if p.err != nil {
		return nil, p.err
	}
	return profile.Merge(p.pieces)
}

// fetch gets one profile.
func fetch(addr, name string) (*profile.Profile, error) {
	b, err := get(addr, name)
	if err != nil {
		return nil, err
	}
	return profile.ParseData(b)
}

func get(addr, name string) ([]byte, error) {
	c := http.Client{Timeout: 30 * time.Second}
	resp, err := c.Get("http://" + addr + "/debug/pprof/" + name)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, fmt.Errorf("profile %s: %s: %s", name, resp.Status, b)
	}
	return io.ReadAll(resp.Body)
}

// Snapshot writes the heap and the goroutines as <prefix>-heap.pprof and
// <prefix>-goroutine.pprof.
func Snapshot(addr, prefix string) error {
	for _, name := range []string{"heap", "goroutine"} {
		p, err := fetch(addr, name)
		if err != nil {
			return err
		}
		if err := Write(p, prefix+"-"+name+".pprof"); err != nil {
			return err
		}
	}
	return nil
}

// Live is the memory in bytes of the heap after a collection, and of the stacks.
func Live(addr string) (float64, error) {
	var m runtime.MemStats
	for range 2 { // a pool lets go of what nobody asked for between two
		text, err := get(addr, "heap?gc=1&debug=1")
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(text) {
			_, _ = fmt.Sscanf(string(line), "# HeapAlloc = %d", &m.HeapAlloc)
			_, _ = fmt.Sscanf(string(line), "# Stack = %d", &m.StackInuse)
		}
	}
	if m.HeapAlloc == 0 || m.StackInuse == 0 {
		return 0, errors.New("the profile of the heap does not say how large it is")
	}
	return float64(m.HeapAlloc + m.StackInuse), nil
}

// Write writes a profile to a file, whose directory it makes if need be.
func Write(p *profile.Profile, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(p.Write(f), f.Close())
}

// Merge makes one profile of several, for profile-guided optimisation.
func Merge(ps []*profile.Profile) (*profile.Profile, error) {
	if len(ps) == 0 {
		return nil, errors.New("no profiles to merge")
	}
	return profile.Merge(ps)
}
