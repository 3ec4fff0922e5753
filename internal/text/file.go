package text

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// FileError is why a file cannot be read, in one line that begins with its name
// and holds the mend. It wraps the cause.
func FileError(name string, err error) error {
	// The path in a PathError would come twice.
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if mend := fileMend(name, err); mend != "" {
		return fmt.Errorf("%s: %w: %s", name, err, mend)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func fileMend(name string, err error) string {
	dir := filepath.Dir(name)
	target, _ := os.Readlink(name)
	_, noDir := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return closedBy(name)
	case errors.Is(err, syscall.EISDIR):
		return "name a file in it"
	case !errors.Is(err, fs.ErrNotExist):
		return ""
	case strings.HasPrefix(name, "<"):
		return "leave out the <, which is Dovecot's way of writing"
	case strings.HasPrefix(name, "file:"):
		return "give the path alone, without file:"
	case target != "":
		return "it is a link to " + target + ", which is not there"
	case errors.Is(noDir, fs.ErrNotExist):
		return "the directory " + dir + " is not there"
	case !filepath.IsAbs(name):
		return "create it, or mend the name, which counts from the working directory"
	}
	return "create it, or mend the name"
}

// closedBy says whose a file is that may not be read, and who we are.
func closedBy(name string) string {
	us := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(us); err == nil {
		us = u.Username
	}
	info, err := os.Stat(name)
	if err != nil {
		return "the user " + us + " may not search one of the directories above it"
	}
	st := info.Sys().(*syscall.Stat_t)
	owner := strconv.Itoa(int(st.Uid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	return fmt.Sprintf("it belongs to %s (group %d) with mode %04o, and Postern runs as %s: give that user or its group the right to read it",
		owner, st.Gid, info.Mode().Perm(), us)
}
