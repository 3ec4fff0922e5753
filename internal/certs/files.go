package certs

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/internal/text"
)

// maxFile bounds one file, in bytes: ten times a long chain.
const maxFile = 1 << 20

// file is a PEM file that was read: its certificates in DER, in order, and its
// keys.
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
	// pairs were found in it or below it.
	pairs int
}

// count notes that a pair was found in the folder.
func (d *folder) count() {
	for ; d != nil; d = d.parent {
		d.pairs++
	}
}

// root returns the directory that was named.
func (d *folder) root() *folder {
	for d.parent != nil {
		d = d.parent
	}
	return d
}

// problem notes a problem with a file or directory. In a directory it is a stray,
// unless it has nothing to do with the file.
func (l *loader) problem(name string, dir *folder, err error) {
	err = text.FileError(name, err)
	if dir == nil || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		l.problems = append(l.problems, err)
		return
	}
	l.strays = append(l.strays, stray{dir, err})
}

// read reads a file or directory in d, or that the operator named if d is nil.
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

// readFolder reads the files in a directory and in its directories: certbot and
// others have one for each name. Names that begin with a dot are Kubernetes'
// second view of the same files.
func (l *loader) readFolder(d *folder) {
	entries, err := os.ReadDir(d.name)
	if err != nil {
		l.problem(d.name, d.parent, err)
		return
	}
	l.folders = append(l.folders, d)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			l.read(filepath.Join(d.name, entry.Name()), d)
		}
	}
}

// readFile reads a certificate or key file, or any file of a directory. It skips
// certificates in a key file: only those named as such are served.
func (l *loader) readFile(name string, d *folder, asKey bool) {
	f, err := readPEM(name)
	switch {
	case errors.Is(err, errNoPEM) && d != nil:
		return // a README, say
	case err == nil && asKey && len(f.keys) == 0:
		err = l.swapped(errNoKey, len(f.chain) > 0, "certificates", "its key", l.certs, l.keys)
	case err == nil && !asKey && d == nil && len(f.chain) == 0:
		err = l.swapped(errNoCertificate, len(f.keys) > 0, "a key", "its certificate", l.keys, l.certs)
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

// swapped adds to an error what is in the file instead, and which variables are for
// that and for what it lacks.
func (l *loader) swapped(err error, is bool, what, lacks, variable, other string) error {
	if !is {
		return fmt.Errorf("%w: name the file that has one", err)
	}
	return fmt.Errorf("%w but %s: name it in %s, and %s in %s", err, what, variable, lacks, other)
}

func readPEM(name string) (*file, error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	f, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	f.name = name
	return f, nil
}

func readBounded(name string) ([]byte, error) {
	data, err := text.ReadFile(name, maxFile)
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}
