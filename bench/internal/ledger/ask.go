package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// patience is how long an answer may take.
const patience = 10 * time.Minute

// answer is what the admin port said to one request.
type answer struct {
	status      int
	retryAfter  string
	first, took time.Duration // to the first byte of the body, and to the last
	size        int64
	err         error // it broke off
}

// problem is why the answer is none, or empty.
func (a *answer) problem() string {
	switch {
	case a.err != nil && a.status != 0:
		return fmt.Sprintf("%d, then %v after %.1f s", a.status, a.err, a.took.Seconds())
	case a.err != nil:
		return fmt.Sprintf("%v after %.1f s", a.err, a.took.Seconds())
	case a.status != http.StatusOK && a.retryAfter != "":
		return fmt.Sprintf("%d, Retry-After %s, after %.1f s", a.status, a.retryAfter, a.took.Seconds())
	case a.status != http.StatusOK:
		return fmt.Sprintf("%d after %.1f s", a.status, a.took.Seconds())
	}
	return ""
}

// client asks the admin port; each request on a connection of its own.
type asker struct {
	base string
	http http.Client
}

func newAsker(addr string) *asker {
	return &asker{base: "http://" + addr, http: http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}}
}

// ask reads an answer to its end and forgets it.
func (k *asker) ask(ctx context.Context, path string) (a answer) {
	begun := time.Now()
	a.err = k.get(ctx, path, func(r *http.Response) error {
		a.status, a.retryAfter = r.StatusCode, r.Header.Get("Retry-After")
		var one [1]byte
		n, err := io.ReadFull(r.Body, one[:])
		a.first = time.Since(begun)
		if err != nil {
			return err
		}
		rest, err := io.Copy(io.Discard, r.Body)
		a.size = int64(n) + rest
		return err
	})
	a.took = time.Since(begun)
	return a
}

// read decodes an answer that is JSON, whose status must be 200.
func (k *asker) read(ctx context.Context, path string, decode func(*json.Decoder) error) error {
	err := k.get(ctx, path, func(r *http.Response) error {
		if r.StatusCode != http.StatusOK {
			return errors.New(r.Status)
		}
		return decode(json.NewDecoder(r.Body))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (k *asker) get(ctx context.Context, path string, read func(*http.Response) error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := k.http.Do(r)
	var named *url.Error
	if errors.As(err, &named) {
		return named.Err
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(resp)
}

// total is the number of clients that a filter selects.
func (k *asker) total(ctx context.Context, filter string) (int, error) {
	var list struct{ Total int }
	err := k.read(ctx, "/api/v1/legacy-clients?limit=1"+filter, func(d *json.Decoder) error { return d.Decode(&list) })
	return list.Total, err
}

// figures are the numbers of a ledger, by name.
type figures map[string]string

// compared are the parts of a report whose numbers do not depend on who words it.
var compared = map[string]bool{"readiness": true, "totals": true, "groups": true, "trend": true}

// figures reads the numbers of a window that begins at a time.
func (k *asker) figures(ctx context.Context, since time.Time, account string) (figures, error) {
	all := figures{}
	for _, filter := range []string{"", "&noise=include", "&version=tls1.1", "&listener=pop3", "&software=outlook", "&account=" + url.QueryEscape(account)} {
		n, err := k.total(ctx, filter)
		if err != nil {
			return nil, err
		}
		all["total of limit=1"+filter] = fmt.Sprint(n)
	}
	window := url.Values{"since": {since.Format(time.RFC3339)}}
	err := k.read(ctx, "/api/v1/report?"+window.Encode(), all.readReport)
	return all, err
}

// readReport reads the compared parts of a report, and holds no other.
func (f figures) readReport(d *json.Decoder) error {
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if name := key.(string); compared[name] { // a key is a string
			var part any
			if err := d.Decode(&part); err != nil {
				return err
			}
			f.flatten("report: "+name, part)
			continue
		}
		if err := skip(d); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// skip reads past a value, an element at a time.
func skip(d *json.Decoder) error {
	open, err := d.Token()
	if err != nil || open != json.Delim('[') && open != json.Delim('{') {
		return err
	}
	var forgotten json.RawMessage
	for d.More() {
		if open == json.Delim('{') {
			if _, err := d.Token(); err != nil {
				return err
			}
		}
		if err := d.Decode(&forgotten); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// flatten adds the numbers and answers below a part; sentences are left out.
func (f figures) flatten(name string, part any) {
	switch part := part.(type) {
	case map[string]any:
		for key, value := range part {
			f.flatten(name+"."+key, value)
		}
	case []any:
		for i, value := range part {
			if _, words := value.(string); !words {
				f.flatten(fmt.Sprintf("%s[%d]", name, i), value)
			}
		}
	case json.Number, bool:
		f[name] = fmt.Sprint(part)
	}
}
