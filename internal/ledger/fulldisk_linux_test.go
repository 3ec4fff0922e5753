package ledger

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// onDisksOfItsOwn runs a test in a process that may mount disks; in the one that has
// started it, it returns false.
func onDisksOfItsOwn(t *testing.T) bool {
	t.Helper()
	const inside = "TEST_ON_A_SMALL_DISK"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if id := os.Geteuid(); id != 0 {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return false
	}
	return true
}

// TestTryOnAFullDiskSaysWhatOpenSays: with any number of pages left, check says what
// serve will, and names the ledger's own file.
func TestTryOnAFullDiskSaysWhatOpenSays(t *testing.T) {
	if !onDisksOfItsOwn(t) {
		return
	}
	const page, pages = 4096, 75
	failed := 0
	for free := range pages {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=300k"); err != nil {
			t.Fatalf("mounting a small disk: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "others"), make([]byte, page*(pages-free)), 0o600); err != nil {
			t.Fatal(err)
		}
		url := "sqlite:" + filepath.Join(dir, "ledger.db")
		tried := Try(t.Context(), url)
		s, opened := Open(t.Context(), url)
		switch {
		case (tried == nil) != (opened == nil):
			t.Errorf("%d pages: check says %v, serve %v", free, tried, opened)
		case opened == nil:
			if err := Try(t.Context(), url); free == pages-1 && err != nil {
				t.Errorf("with room for more: %v", err)
			}
			os.WriteFile(filepath.Join(dir, "more"), make([]byte, page*pages), 0o600) // as much of it as there is room for
			if err := Try(t.Context(), url); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), url+": the disk is full") {
				t.Errorf("%d pages, then none, beside a proxy: check says %v", free, err)
			}
			s.Close()
		default:
			failed++
			for _, err := range []error{tried, opened} {
				if !strings.Contains(err.Error(), url+": the disk is full") && !strings.Contains(err.Error(), "the ledger cannot be made: the disk is full") {
					t.Errorf("%d pages: %v", free, err)
				}
			}
		}
		syscall.Unmount(dir, 0)
	}
	if failed == 0 || failed == pages {
		t.Errorf("%d of %d disks were too small", failed, pages)
	}
}

// TestAFullDiskDelaysAnUpgrade: it says so, and goes on once there is room.
func TestAFullDiskDelaysAnUpgrade(t *testing.T) {
	if !onDisksOfItsOwn(t) {
		return
	}
	source := newURL(t, "sqlite")
	oldLedger(t, source)
	ledger, err := os.ReadFile(sqlitePath(source))
	if err != nil {
		t.Fatal(err)
	}
	for free := 256 << 10; free <= 1<<20; free += 256 << 10 {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
			t.Fatalf("mounting a small disk: %v", err)
		}
		path, others := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "others")
		if err := errors.Join(os.WriteFile(path, ledger, 0o600), os.WriteFile(others, make([]byte, 24<<20-len(ledger)-free), 0o600)); err != nil {
			t.Fatal(err)
		}
		s, err := open("sqlite:"+path, false)
		if err != nil {
			t.Fatal(err)
		}
		pieces := 0
		if err := s.Upgrade(t.Context(), func(float64) { pieces++ }); err == nil || !strings.Contains(err.Error(), "full") || pieces > 6 {
			t.Errorf("%d KB: %d pieces, then %v", free>>10, pieces, err)
		}
		os.Remove(others)
		if err := s.Upgrade(t.Context(), func(float64) {}); err != nil {
			t.Errorf("with room again: %v", err)
		}
		s.Close()
		syscall.Unmount(dir, 0)
	}
}
