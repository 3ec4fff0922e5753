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
	case strings.Trim(name, `"'`) != name:
		return "leave out the quotation marks, which are part of the name here"
	case strings.TrimSpace(name) != name:
		return "the name begins or ends with a blank"
	}
	if target, err := os.Readlink(name); err == nil {
		return "it is a link to " + target + ", which is not there"
	}
	dir := filepath.Dir(name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "the directory " + dir + " is not there"
	}
	if !filepath.IsAbs(name) {
		return "create it, or mend the name, which counts from the working directory"
	}
	return "create it, or mend the name"
}

// closedBy says whose the file, or the directory before it, is that may not be
// read, and who we are.
func closedBy(name string) string {
	part, info, err := name, fs.FileInfo(nil), error(nil)
	for info, err = os.Stat(part); err != nil && part != filepath.Dir(part); info, err = os.Stat(part) {
		part = filepath.Dir(part)
	}
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	what := "it"
	if part != name {
		what = part
	}
	return fmt.Sprintf("%s belongs to %s:%s with mode %04o, and Postern runs as %s: give that user or its group the right to read it",
		what, userName(st.Uid), groupName(st.Gid), info.Mode().Perm(), userName(uint32(os.Geteuid())))
}

func userName(id uint32) string {
	number := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}

func groupName(id uint32) string {
	number := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(number); err == nil {
		return g.Name
	}
	return number
}
