package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// state is what files look like from outside: for each its time, size, inode
// and rights, or that it is not there. States are equal where files are.
type state string

// unknown is the state of files that cannot be looked at now, and no state of
// any others.
const unknown state = "unknown"

// depth is how many directories deep a path is looked at: itself, and those in
// it, as certificates are laid out.
const depth = 2

func look(paths []string) state {
	var b strings.Builder
	for _, path := range paths {
		if !describe(&b, path, depth) {
			return unknown
		}
	}
	return state(b.String())
}

// describe follows symbolic links: what counts is the file that would be read.
func describe(b *strings.Builder, path string, deeper int) (ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		fmt.Fprintf(b, "%q %s\n", path, reason(err))
		return !noDescriptors(err)
	}
	var inode, device uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode, device = st.Ino, uint64(st.Dev)
	}
	if !info.IsDir() {
		fmt.Fprintf(b, "%q %d %d %d:%d %o\n", path, info.ModTime().UnixNano(), info.Size(), device, inode, info.Mode())
		return true
	}
	// A directory's own time says too much: any file that comes or goes.
	fmt.Fprintf(b, "%q %d:%d %o\n", path, device, inode, info.Mode())
	if deeper == 0 {
		return true
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		fmt.Fprintf(b, "%q %s\n", path, reason(err))
		return !noDescriptors(err)
	}
	for _, entry := range entries {
		// What begins with a dot is Kubernetes' second view of the same files.
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if !describe(b, filepath.Join(path, entry.Name()), deeper-1) {
			return false
		}
	}
	return true
}

func reason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}
