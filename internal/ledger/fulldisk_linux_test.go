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

// TestTryOnAFullDiskSaysWhatOpenSays: with any number of pages left, check says what
// serve will, and names the ledger's own file.
func TestTryOnAFullDiskSaysWhatOpenSays(t *testing.T) {
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
