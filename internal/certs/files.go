package certs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds what is read of one file, in bytes: ten times a long chain.
const maxFile = 1 << 20

// file is a PEM file that was read.
type file struct {
	contents
	name string  // as the operator named it
	dir  *folder // nil where the file itself was named
}

// folder is a directory with certificates, or one in it.
type folder struct {
	name   string
	parent *folder // nil where the directory itself was named
	// pairs were found in it, in what lies in it too.
	pairs int
	// orphan is a server's certificate in it without a key.
	orphan bool
	// failed: there was a problem with it that has been told.
	failed bool
}

// count says that a pair was found in the folder.
func (d *folder) count() {
	for ; d != nil; d = d.parent {
		d.pairs++
	}
}

func (d *folder) fail() {
	for ; d != nil; d = d.parent {
		d.failed = true
	}
}

// problem notes what is wrong with a file or directory.
func (l *loader) problem(name string, dir *folder, err error) {
	dir.fail()
	l.problems = append(l.problems, named(name, err))
}

// read reads what the operator named, where d is nil, or what lies in d: a file
// or a directory.
func (l *loader) read(name string, d *folder) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		l.problem(name, d, err)
	case info.IsDir() && (d == nil || d.parent == nil):
		l.readFolder(&folder{name: name, parent: d})
	case d == nil || info.Mode().IsRegular() && info.Size() <= maxFile:
		l.readFile(name, d)
	}
}

// readFolder reads the files in a directory, and in the directories in it, as
// certbot and others lay them out: one for each name. What begins with a dot
// is Kubernetes' second view of the same files.
func (l *loader) readFolder(d *folder) {
	entries, err := os.ReadDir(d.name)
	if err != nil {
		l.problem(d.name, d, err)
		return
	}
	l.folders = append(l.folders, d)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			l.read(filepath.Join(d.name, entry.Name()), d)
		}
	}
}

// readFile reads a file that was named as a certificate's, or lies in a
// directory, where it may be anything.
func (l *loader) readFile(name string, d *folder) {
	c, err := readPEM(name)
	switch {
	case errors.Is(err, errNoPEM) && d != nil:
		return
	case err == nil && d == nil && len(c.chain) == 0:
		err = errNoCertificate
	}
	if err != nil {
		l.problem(name, d, err)
		return
	}
	f := &file{contents: c, name: name, dir: d}
	l.addKeys(f)
	if len(f.chain) > 0 {
		l.files = append(l.files, f)
	}
}

// readKeyFile reads a file that was named as a key's. Certificates in it are
// passed over: only those named as such are served.
func (l *loader) readKeyFile(name string) {
	c, err := readPEM(name)
	if err == nil && len(c.keys) == 0 {
		err = errNoKey
	}
	if err != nil {
		l.problem(name, nil, err)
		return
	}
	l.addKeys(&file{contents: c, name: name})
}

func readPEM(name string) (contents, error) {
	data, err := readBounded(name)
	if err != nil {
		return contents{}, err
	}
	return parse(data)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}
