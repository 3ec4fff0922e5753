package profiles

import (
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
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

func TestAProcessWithoutProfilesIsAnError(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if _, err := StartCPU(strings.TrimPrefix(s.URL, "http://")).Stop(); err == nil {
		t.Error("a profile came of nothing")
	}
}
