// Package clients asks a running proxy, by its page and its API, who is left.
package clients

import (
	"crypto/tls"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// listed is the API's answer, as a script reads it.
type listed struct {
	Total      int
	NextCursor string `json:"next_cursor"`
	Clients    []struct {
		Client, Listener, Endpoint, Version, Reason, JA4 string
		FirstSeen                                        time.Time `json:"first_seen"`
		LastSeen                                         time.Time `json:"last_seen"`
		Counts                                           map[string]int
		Accounts, Software                               []string
		SpeaksLike                                       []string `json:"speaks_like"`
		Login, Rule, Owner, Until                        string
		Noise                                            bool
	}
}

func ask(t *testing.T, g *posterntest.Proxy, query string) (l listed) {
	t.Helper()
	status, body, err := g.Get("/api/v1/legacy-clients?" + query)
	if err != nil || status != 200 {
		t.Fatalf("%s: status %d: %v: %s", query, status, err, body)
	}
	if err := json.Unmarshal([]byte(body), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// startProxy lets old clients in, and has an exemption for 127.0.0.7.
func startProxy(t *testing.T, env map[string]string) *posterntest.Proxy {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
floor: tls1.2
mode: observe
rules:
  - {name: scanners, mode: observe, match: {client: [127.0.0.7]}, until: 2099-12-31T00:00:00Z, owner: facilities@example.org}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	all := map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "POLICY_FILE": file}
	for k, v := range env {
		all[k] = v
	}
	return posterntest.Start(t, all)
}

// visit logs in with an old or a new version of TLS.
func visit(t *testing.T, g *posterntest.Proxy, from, listener string, version uint16, account, id string) {
	t.Helper()
	c, err := posterntest.Caller{From: from, TLS: &tls.Config{MinVersion: version, MaxVersion: version}}.Open(g, listener)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if id != "" {
		if err := c.Do(`ID ("name" %q)`, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Login(account, "s3cr3t-word"); err != nil {
		t.Fatal(err)
	}
}

func TestRemainingClientsAreReportedWithinSeconds(t *testing.T) {
	t.Parallel()
	var g *posterntest.Proxy
	var l listed
	posterntest.Within(t, "the report", 15*time.Second, func() time.Duration {
		g = startProxy(t, nil)
		begun := time.Now()
		visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna", "")
		visit(t, g, "127.0.0.7", "imaps", tls.VersionTLS10, "anna", "")
		visit(t, g, "127.0.0.8", "imap", tls.VersionTLS11, "bert", "")
		visit(t, g, "127.0.0.9", "imaps", tls.VersionTLS13, "modern", "")
		l = wait(t, g, 2)
		return time.Since(begun)
	})
	_, port, _ := strings.Cut(g.Addr("imaps"), ":")
	for _, c := range l.Clients {
		want := "127.0.0.8 imap tls1.1 version 1 [] [] ok false"
		if c.Client == "127.0.0.7" {
			want = "127.0.0.7 imaps tls1.0 version 2 [] [] ok false"
			if c.Endpoint != posterntest.DefaultNames[0]+":"+port || c.Rule != "scanners" || c.Owner != "facilities@example.org" || c.Until != "2099-12-31T00:00:00Z" {
				t.Errorf("%+v", c)
			}
		}
		if got := fmt.Sprint(c.Client, " ", c.Listener, " ", c.Version, " ", c.Reason, " ", c.Counts["observed"], c.Accounts, c.Software, " ", c.Login, " ", c.Noise); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if l := ask(t, g, "version=tls1.0&since=1h"); l.Total != 1 || l.Clients[0].Client != "127.0.0.7" {
		t.Errorf("by version: %+v", l)
	}
	first := ask(t, g, "limit=1")
	if second := ask(t, g, "limit=1&cursor="+first.NextCursor); second.NextCursor != "" || second.Clients[0].Client == first.Clients[0].Client {
		t.Errorf("pages: %+v, then %+v", first, second)
	}
	_, body, err := g.Get("/api/v1/legacy-clients?format=csv")
	rows, cerr := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || cerr != nil || len(rows) != 3 {
		t.Errorf("%v, %v: %s", err, cerr, body)
	}
	page := waitPage(t, g, "<b>2</b> <span>in the last hour</span>")
	for _, want := range []string{"127.0.0.7", "127.0.0.8", "scanners", "2099", `<rect class="v-tls10"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s:\n%s", want, page)
		}
	}
	for _, bad := range []string{"<script", "s3cr3t", "127.0.0.9", "http://"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
}

// wait is for what was seen to be written, all of it: a login may come later than its
// handshake.
func wait(t *testing.T, g *posterntest.Proxy, clients int) listed {
	t.Helper()
	g.WaitWritten(t)
	return waitFor(t, g, "", clients)
}

// waitFor is wait for the clients of a filter.
func waitFor(t *testing.T, g *posterntest.Proxy, query string, clients int) (l listed) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if l = ask(t, g, query); l.Total == clients && len(l.Clients) == clients {
			return l
		}
	}
	t.Fatalf("%+v", l)
	return l
}

// waitPage is for a text on the page: its numbers are counted a little later.
func waitPage(t *testing.T, g *posterntest.Proxy, want string) (page string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		status, body, err := g.Get("/")
		if err != nil || status != 200 {
			t.Fatalf("status %d: %v", status, err)
		}
		if page = body; strings.Contains(page, want) {
			return page
		}
	}
	t.Fatalf("no %s on the page:\n%s", want, page)
	return page
}

func TestPageAndListNeedTheToken(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("correct-horse-battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startProxy(t, map[string]string{"ADMIN_TOKEN_FILE": token})
	status := func(path, host, authorization string) int {
		r, err := http.NewRequest("GET", "http://"+g.Admin()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Host = host; authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for _, path := range []string{"/", "/api/v1/legacy-clients"} {
		for _, tt := range []struct {
			host, authorization string
			status              int
		}{
			{"localhost", "", 200}, {"evil.example", "", 421}, {"evil.example", "Bearer correct-horse-battery", 200}, {"localhost", "Bearer wrong-horse-battery", 401},
		} {
			if got := status(path, tt.host, tt.authorization); got != tt.status {
				t.Errorf("%s as %s with %q: status %d, want %d", path, tt.host, tt.authorization, got, tt.status)
			}
		}
	}
	for range 8 {
		status("/", "localhost", "Bearer wrong-horse-battery")
	}
	if got := status("/", "localhost", "Bearer correct-horse-battery"); got != 429 {
		t.Errorf("after ten wrong tokens: status %d", got)
	}
}
