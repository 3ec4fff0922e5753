package certs

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// at makes a certificate's validity begin and end so many days from now.
func at(begin, end int, name ...string) *x509.Certificate {
	c := template(name...)
	c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, begin), time.Now().AddDate(0, 0, end)
	return c
}

func TestRenew(t *testing.T) {
	const emptied = -1000
	type file struct{ begin, end int }
	valid, expired, early := file{-1, 1}, file{-3, -1}, file{1, 3}
	for name, tt := range map[string]struct {
		old, fresh map[string]file
		gone       string
		err        string
	}{
		"a renewed one":                     {old: map[string]file{"a": valid}, fresh: map[string]file{"a": valid}},
		"another name":                      {old: map[string]file{"a": valid}, fresh: map[string]file{"b": valid}, gone: "a"},
		"one more":                          {old: map[string]file{"a": valid}, fresh: map[string]file{"a": valid, "b": valid}},
		"one less":                          {old: map[string]file{"a": valid, "b": valid}, fresh: map[string]file{"a": valid}, gone: "b"},
		"expired":                           {old: map[string]file{"a": valid}, fresh: map[string]file{"a": expired}, err: "a: the new certificate has expired at "},
		"expired, as before":                {old: map[string]file{"a": expired}, fresh: map[string]file{"a": expired}},
		"one expired, as before":            {old: map[string]file{"a": expired, "b": valid}, fresh: map[string]file{"a": expired, "b": valid}},
		"valid again":                       {old: map[string]file{"a": expired}, fresh: map[string]file{"a": valid}},
		"early":                             {old: map[string]file{"a": valid}, fresh: map[string]file{"a": early}, err: "a: the new certificate is not valid before "},
		"expired under another name":        {old: map[string]file{"a": valid}, fresh: map[string]file{"b": expired}, err: "b: the new certificate has expired at "},
		"one of two expired, the other not": {old: map[string]file{"a": valid, "b": valid}, fresh: map[string]file{"a": valid, "b": expired}, err: "b: the new certificate has expired at "},
		"emptied":                           {old: map[string]file{"a": valid, "b": valid}, fresh: map[string]file{"a": valid, "b": {emptied, 0}}, err: "b: no certificate with its key any more"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTree(t)
			load := func(files map[string]file) *Store {
				for _, f := range []string{"a", "b"} {
					switch v, ok := files[f]; {
					case !ok:
						removeFile(t, d.path("tls/"+f))
					case v.begin == emptied:
						d.put("tls/"+f, "")
					default:
						key := newKey(t)
						d.put("tls/"+f, certPEM(t, key, at(v.begin, v.end, f+".example.org")), keyPEM(t, key))
					}
				}
				return mustLoad(t, []string{d.path("tls")}, nil)
			}
			old := load(tt.old)
			lost, err := Renew(old, load(tt.fresh), time.Now())
			var names []string
			for _, info := range lost {
				names = append(names, filepath.Base(info.Name))
			}
			if got := strings.Join(names, ","); got != tt.gone {
				t.Errorf("gone: %q, want %q", got, tt.gone)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), d.path("tls/"+tt.err))) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// TestARenewalInADirectory: the second state of a directory takes the place of
// the first, or the error says why not.
func TestARenewalInADirectory(t *testing.T) {
	oldKey, newKey, otherKey := newKey(t), newKey(t), newKey(t)
	old, fresh := certPEM(t, oldKey, at(-5, 5, "mail.example.org")), certPEM(t, newKey, at(-1, 9, "mail.example.org"))
	expired := certPEM(t, oldKey, at(-5, -1, "mail.example.org"))
	other := certPEM(t, otherKey, template("other.example.org")) + keyPEM(t, otherKey)
	for name, test := range map[string]struct {
		before, after map[string]string
		err           string
	}{
		"the old key is kept": {map[string]string{"mail.crt": old, "mail.key": keyPEM(t, oldKey)},
			map[string]string{"mail.crt": fresh, "mail.key": keyPEM(t, newKey), "mail.key.bak": keyPEM(t, oldKey)}, ""},
		"the old pair is kept": {map[string]string{"a.pem": old + keyPEM(t, oldKey)},
			map[string]string{"a.pem": old + keyPEM(t, oldKey), "b.pem": fresh + keyPEM(t, newKey)}, ""},
		"an older pair comes beside it": {map[string]string{"b.pem": fresh + keyPEM(t, newKey)},
			map[string]string{"a.pem": expired + keyPEM(t, oldKey), "b.pem": fresh + keyPEM(t, newKey)}, ""},
		"an older pair takes its place": {map[string]string{"a.pem": old + keyPEM(t, oldKey), "b.pem": fresh + keyPEM(t, newKey)},
			map[string]string{"a.pem": expired + keyPEM(t, oldKey), "b.pem": fresh + keyPEM(t, newKey)}, ""},
		"the key comes first": {map[string]string{"mail.crt": old, "mail.key": keyPEM(t, oldKey), "other.pem": other},
			map[string]string{"mail.crt": old, "mail.key": keyPEM(t, newKey), "other.pem": other}, "mail.crt: no certificate with its key any more"},
		"half a file": {map[string]string{"mail.pem": old + keyPEM(t, oldKey), "other.pem": other},
			map[string]string{"mail.pem": fresh[:99], "other.pem": other}, "mail.pem: no certificate with its key any more"},
	} {
		t.Run(name, func(t *testing.T) {
			load := func(files map[string]string) *Store {
				d := newTree(t)
				for name, text := range files {
					d.put(name, text)
				}
				return mustLoad(t, []string{d.dir}, nil)
			}
			was, is := load(test.before), load(test.after)
			dir := filepath.Dir(is.Certificates()[0].Name)
			for i := range was.infos { // as if in the same directory
				was.infos[i].Name = filepath.Join(dir, filepath.Base(was.infos[i].Name))
			}
			_, err := Renew(was, is, time.Now())
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, test.err))) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func removeFile(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
