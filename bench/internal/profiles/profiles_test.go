package profiles

import (
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestProfilesOfARunningProcess(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s := httptest.NewServer(mux)
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")

	p, err := StartCPU(addr).Stop()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if err := Write(p, filepath.Join(dir, "cpu.pprof")); err != nil {
		t.Fatal(err)
	}
	if err := Snapshot(addr, filepath.Join(dir, "idle")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu", "idle-heap", "idle-goroutine"} {
		f, err := os.Open(filepath.Join(dir, name+".pprof"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := profile.Parse(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

func TestLiveMemoryIsWhatIsHeld(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(pprof.Index))
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	read := func() float64 {
		live, err := Live(addr)
		if err != nil {
			t.Fatal(err)
		}
		return live
	}
	before := read()
	held := make([]byte, 8<<20)
	if grown := read() - before; grown < 7<<20 || grown > 9<<20 {
		t.Errorf("%.0f bytes more with 8 MB held", grown)
	}
	runtime.KeepAlive(held)
	held = nil
	if grown := read() - before; grown < -1<<20 || grown > 1<<20 {
		t.Errorf("%.0f bytes more with nothing held", grown)
	}
}

func TestAProcessWithoutProfilesIsAnError(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	if _, err := StartCPU(addr).Stop(); err == nil {
		t.Error("a profile came of nothing")
	}
	if live, err := Live(addr); err == nil {
		t.Errorf("%.0f bytes are live in nothing", live)
	}
}
