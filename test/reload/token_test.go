package reload

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/posterntest"
)

const (
	firstToken  = "first-hunter2-token"
	secondToken = "second-hunter2-token"
)

// ask returns the status of a request for what the API does not have: 404
// where it would have answered.
func ask(t *testing.T, g *posterntest.Proxy, host, token string) int {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+g.Admin()+"/api/v1/none", nil)
	must(t, err)
	if host != "" {
		req.Host = host
	}
	if token != "" {
		req.SetBasicAuth("anna", token)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	must(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// everywhere is a free port on every address.
func everywhere(t *testing.T) string {
	_, port, err := net.SplitHostPort(posterntest.FreeAddr(t))
	must(t, err)
	return "0.0.0.0:" + port
}

func TestTheAdminTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	put := func(text string) {
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	put(firstToken + "\n")
	w := start(t, dir+"/c", dir+"/k", map[string]string{"ADMIN_LISTEN": everywhere(t), "ADMIN_TOKEN_FILE": file, "LOG_LEVEL": "debug"})
	expect := func(what, host, token string, want int) {
		t.Helper()
		if got := ask(t, w.Proxy, host, token); got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	expect("without it", "", "", 401)
	expect("with it", "", firstToken, 404)
	expect("with it, by whatever name", "mail.example.org", firstToken, 404)
	expect("another", "", secondToken, 401)
	if n := len(w.WaitLog(t, "configuration warning", 1)); n != 1 || !strings.Contains(w.Stderr(), "POSTERN_ADMIN_TOKEN_FILE: the token comes unencrypted") {
		t.Errorf("%d warnings", n)
	}
	failures := 0
	for says, broken := range map[string]func(){
		"the token has 15 bytes":          func() { put("hunter2-hunter2\n") },
		"is not one line":                 func() { put(secondToken + "\n" + secondToken) },
		"no such file or directory":       func() { must(t, os.Remove(file)) },
		"the token has more than 4096 by": func() { put(strings.Repeat("hunter2", 1000)) },
	} {
		broken()
		w.Signal(t, syscall.SIGHUP)
		failures++
		w.WaitLog(t, "reloading failed, the old files stay in force", failures)
		if text := w.Stderr(); !strings.Contains(text, "POSTERN_ADMIN_TOKEN_FILE: "+file+": ") || !strings.Contains(text, says) {
			t.Errorf("no line that says %q", says)
		}
		expect("the old one after "+says, "", firstToken, 404)
	}
	if n := w.Metrics(t).Count("postern_certificate_reload_failures_total"); n < float64(failures) {
		t.Errorf("%v failures counted, want %d", n, failures)
	}
	n := len(w.LogLines("files reloaded"))
	put(secondToken)
	w.WaitLog(t, "files reloaded", n+1) // without a wrong one until then
	expect("the new one", "", secondToken, 404)
	expect("the old one", "", firstToken, 401)
	for range 10 {
		ask(t, w.Proxy, "", firstToken)
	}
	expect("the right one after ten wrong ones", "", secondToken, 429)
	w.WaitLog(t, "too many wrong admin tokens, the address is refused for a minute", 1)
	if strings.Contains(w.Stderr(), "hunter2") {
		t.Error("a token is in the log")
	}
}

func TestWithoutATokenTheAPIIsForLoopbackAndItsNames(t *testing.T) {
	t.Parallel()
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	env := map[string]string{"UPSTREAM_IMAP": up.URL("imap"), "LISTEN_IMAP": "off"}
	local := posterntest.Start(t, env)
	for host, want := range map[string]int{"": 404, "localhost": 404, "evil.example": 421, "evil.example:9993": 421} {
		if got := ask(t, local, host, ""); got != want {
			t.Errorf("asked as %q: status %d, want %d", host, got, want)
		}
	}
	env["ADMIN_LISTEN"] = everywhere(t)
	off := posterntest.Start(t, env)
	for _, host := range []string{"", "localhost", "evil.example"} {
		for _, token := range []string{"", firstToken} {
			if got := ask(t, off, host, token); got != 404 {
				t.Errorf("asked as %q with %q: status %d, want 404", host, token, got)
			}
		}
	}
	off.WaitLog(t, "page and API are off, since the admin port is not on loopback", 1)
	if n := len(off.LogLines("configuration warning")); n != 0 {
		t.Errorf("%d warnings", n)
	}
}
