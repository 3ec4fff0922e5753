package text

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFileErrorHoldsTheMend(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/nowhere/at/all", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		dir + "/gone.pem":       ": no such file or directory: create it, or mend the name",
		dir + "/gone/gone.pem":  ": no such file or directory: the directory " + dir + "/gone is not there",
		dir + "/link":           ": no such file or directory: it is a link to /nowhere/at/all, which is not there",
		"gone.pem":              ": no such file or directory: create it, or mend the name, which counts from the working directory",
		"<" + dir + "/gone.pem": ": no such file or directory: leave out the <, which is Dovecot's way of writing",
	} {
		_, err := os.Open(name)
		if got := FileError(name, err); got.Error() != name+want || !errors.Is(got, os.ErrNotExist) {
			t.Errorf("got  %v\nwant %s", got, name+want)
		}
	}
	if got := FileError(dir, syscall.EISDIR).Error(); got != dir+": is a directory: name a file in it" {
		t.Error(got)
	}
	if got := FileError("a", syscall.EIO).Error(); got != "a: input/output error" {
		t.Error(got)
	}
}

// TestAFileThatMayNotBeReadIsDescribed: root may read all, so that the error is
// made here.
func TestAFileThatMayNotBeReadIsDescribed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.key")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	want := file + ": permission denied: it belongs to " + me.Username + " (group " + me.Gid +
		") with mode 0600, and Postern runs as " + me.Username + ": give that user or its group the right to read it"
	if got := FileError(file, &os.PathError{Op: "open", Path: file, Err: syscall.EACCES}).Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := closedBy(filepath.Join(file, "below")); got != "the user "+me.Username+" may not search one of the directories above it: run this as a user who may (sudo), or give it that right (chmod)" {
		t.Errorf("of a file below one that is closed: %s", got)
	}
}
