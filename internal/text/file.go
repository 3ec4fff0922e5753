package text

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ReadFile reads a file of at most so many bytes; of one that is longer, one byte
// more.
func ReadFile(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(most)+1))
}

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
	us := userName(os.Geteuid())
	info, err := os.Stat(name)
	if err != nil {
		return "the user " + us + " may not search one of the directories above it: run this as a user who may (sudo), or give it that right (chmod)"
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("it belongs to %s (group %d) with mode %04o, and Postern runs as %s: give that user or its group the right to read it",
		userName(int(st.Uid)), st.Gid, info.Mode().Perm(), us)
}

func userName(id int) string {
	name := strconv.Itoa(id)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return name
}
