package certs

import (
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds what is read of one file, in bytes: ten times a long chain.
const maxFile = 1 << 20

// file is a PEM file that was read: its certificates in DER, in their order, and
// its keys.
type file struct {
	name  string  // as the operator named it
	dir   *folder // nil where the file itself was named
	chain [][]byte
	keys  []crypto.Signer
}

// folder is a directory with certificates, or one in it.
type folder struct {
	name   string
	parent *folder // nil where the directory itself was named
	// pairs were found in it, in what lies in it too.
	pairs int
	// orphan is a server's certificate in it without a key.
	orphan bool
	// failed: there was a problem with it, which is noted.
	failed bool
}

// count notes that a pair was found in the folder.
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
		l.readFile(name, d, false)
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

// readFile reads a file that was named as a certificate's or a key's, or lies in
// a directory, where it may be anything. Certificates in a key's file are passed
// over: only those named as such are served.
func (l *loader) readFile(name string, d *folder, asKey bool) {
	f, err := readPEM(name)
	switch {
	case errors.Is(err, errNoPEM) && d != nil:
		return
	case err == nil && asKey && len(f.keys) == 0:
		err = errNoKey
	case err == nil && !asKey && d == nil && len(f.chain) == 0:
		err = errNoCertificate
	}
	if err != nil {
		l.problem(name, d, err)
		return
	}
	f.dir = d
	l.addKeys(f)
	if len(f.chain) > 0 && !asKey {
		l.files = append(l.files, f)
	}
}

func readPEM(name string) (*file, error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	f.name = name
	return f, nil
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
