package docs

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/debian13"
	"postern/internal/dovecot"
	"postern/internal/posterntest"
)

const sameHost = "In front of a Dovecot on the same host"

// example is deploy/postern.env; with all, the lines that are commented out
// count too.
func example(t *testing.T, all bool) map[string]string {
	t.Helper()
	vars := make(map[string]string)
	for line := range strings.Lines(read(t, "deploy/postern.env")) {
		line = strings.TrimSpace(line)
		if all && strings.HasPrefix(line, "#"+config.Prefix) {
			line = line[1:]
		}
		if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(line, config.Prefix) {
			vars[name] = value
		}
	}
	return vars
}

func environ(vars map[string]string) []string {
	var out []string
	for name, value := range vars {
		out = append(out, name+"="+value)
	}
	return out
}

func TestExampleEnvironmentIsTaken(t *testing.T) {
	for _, all := range []bool{false, true} {
		vars := example(t, all)
		cfg, err := config.Load(environ(vars))
		if err != nil {
			t.Fatalf("with the comments %v: %v", all, err)
		}
		if w := cfg.Warnings(); len(w) > 0 {
			t.Errorf("with the comments %v: %q", all, w)
		}
		if len(cfg.Listeners()) != 4 {
			t.Errorf("with the comments %v: listeners %v", all, cfg.Listeners())
		}
	}
	commented := maps.Clone(example(t, true))
	for name := range example(t, false) {
		delete(commented, name)
	}
	if len(commented) == 0 {
		t.Error("nothing is commented out")
	}
	defaults, err := config.Load(environ(example(t, false)))
	if err != nil {
		t.Fatal(err)
	}
	spelled, err := config.Load(environ(example(t, true)))
	if err != nil {
		t.Fatal(err)
	}
	for name := range commented {
		was, is := setting(defaults, name), setting(spelled, name)
		if was != is {
			t.Errorf("%s is commented out with %s, but its default is %s", name, is, was)
		}
	}
}

var (
	portLine   = regexp.MustCompile(`(?m)^ *port = .*\n`)
	upstreamOf = map[string]string{"imap": "POSTERN_UPSTREAM_IMAP", "pop3": "POSTERN_UPSTREAM_POP3"}
)

// The commands of the README and of the page on installation are the same. They
// are run here with files in a directory of the test's, and on its own ports.
func TestDovecotOnTheSameHost(t *testing.T) {
	blocks := blocksOf(t, readme, sameHost, "sh")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	same := func(a, b block) bool { return a.text() == b.text() }
	if page := blocksOf(t, install, sameHost, "sh"); !slices.EqualFunc(page, blocks, same) {
		t.Errorf("%s has other commands than the README: %v", install, page)
	}
	dir := t.TempDir()
	moved := strings.NewReplacer("sudo ", "", "-o postern ", "-o "+dir+"/built ", "install postern ", "install "+dir+"/built ",
		"/usr/local/bin/", dir+"/bin-", "/etc/dovecot/", dir+"/dovecot-", "/etc/postern", dir+"/etc")
	shell(t, "export GOFLAGS=-buildvcs=false; "+moved.Replace(blocks[0].text()), "")

	local := readAbs(t, filepath.Join(dir, "dovecot-local.conf"))
	checkDovecotPorts(t, local, false)
	d := dovecot.Start(t, dovecot.Options{Config: portLine.ReplaceAllString(local, "")})

	const start = `exec postern serve`
	line := blocks[1].lines[len(blocks[1].lines)-1]
	if blocks[1].lines[0] != "sudo systemctl restart dovecot" || !strings.Contains(line, start) {
		t.Fatalf("this test does not know how to start Postern by\n%s", blocks[1].text())
	}
	env := make(map[string]string)
	for kv := range strings.Lines(shell(t, moved.Replace(strings.Replace(line, start, "exec env", 1)), "")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(kv), "="); ok && strings.HasPrefix(name, config.Prefix) {
			env[strings.TrimPrefix(name, config.Prefix)] = value
		}
	}
	delete(env, "TLS_CERT_FILE")
	delete(env, "TLS_KEY_FILE")
	env["UPSTREAM_IMAP"], env["UPSTREAM_POP3"] = "imap://"+d.IMAP, "pop3://"+d.POP3
	proxy := posterntest.Start(t, env)

	typed := strings.NewReplacer("127.0.0.1:9993", proxy.Admin(), "127.0.0.1:993", proxy.Addr("imaps"), "127.0.0.1:143", proxy.Addr("imap"))
	dialogue := fmt.Sprintf("a LOGIN %q %q\nb LOGOUT\n", dovecot.Anna.Name, dovecot.Anna.Password)
	for i, want := range []string{"upstream pop3: ok", "a OK", "a OK"} {
		out := shell(t, typed.Replace(blocks[2].lines[i]), dialogue)
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", blocks[2].lines[i], want, out)
		}
	}
}

// The file for 2.4 has the same ports, and lets clients from elsewhere log in
// through Postern.
func TestDovecot24OnTheSameHost(t *testing.T) {
	local := read(t, "deploy/dovecot-2.4.conf")
	d := dovecot.Start(t, dovecot.Options{Debian13: true, Config: portLine.ReplaceAllString(local, "")})
	checkDovecotPorts(t, local, true)
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": "imap://" + d.IMAP, "UPSTREAM_POP3": "pop3://" + d.POP3})
	for _, listener := range posterntest.Listeners {
		c, err := posterntest.Caller{From: "127.0.0.9"}.Login(g, listener, dovecot.Anna.Name, dovecot.Anna.Password)
		if err != nil {
			t.Errorf("%s: %v", listener, err)
			continue
		}
		c.Close()
	}
}

// doveconf is what Dovecot reads in a text: 2.3, or 2.4 in its tree.
func doveconf(t *testing.T, text string, newer bool, section string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "doveconf.conf")
	var tree debian13.Tree
	if newer {
		tree = debian13.Get(t)
		path = filepath.Join(tree.Dir(t), "doveconf.conf")
		text = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n" + text
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := tree.Command("/usr/bin/doveconf", "-c", tree.Inside(path), section).CombinedOutput()
	if err != nil {
		t.Fatalf("doveconf: %v\n%s", err, out)
	}
	return string(out)
}

// checkDovecotPorts lets Dovecot read the example, and finds in it the ports
// that the example environment names, on loopback, and no others.
func checkDovecotPorts(t *testing.T, conf string, newer bool) {
	t.Helper()
	listen := "address"
	if newer {
		listen = "listen"
	}
	for protocol, variable := range upstreamOf {
		_, hostport, _ := strings.Cut(example(t, false)[variable], "://")
		host, port, err := net.SplitHostPort(hostport)
		if err != nil {
			t.Fatal(err)
		}
		got := doveconf(t, "protocols = imap pop3\nssl = no\n"+conf, newer, "service/"+protocol+"-login")
		for listener, want := range map[string]string{protocol: listen + " = " + host + " port = " + port, protocol + "s": "port = 0"} {
			_, rest, _ := strings.Cut(got, "inet_listener "+listener+" {")
			settings, _, _ := strings.Cut(rest, "}")
			for line := range strings.SplitSeq(strings.ReplaceAll(want, " port", "\nport"), "\n") {
				if !strings.Contains(settings, line+"\n") {
					t.Errorf("dovecot's listener %s has no %q:\n%s", listener, line, got)
				}
			}
		}
	}
}

func readAbs(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// setting is the value that a variable has in a configuration.
func setting(c *config.Config, variable string) string {
	v := reflect.ValueOf(c).Elem()
	for f := range v.Type().Fields() {
		if config.Prefix+f.Tag.Get("env") == variable {
			return fmt.Sprint(v.FieldByIndex(f.Index).Interface())
		}
	}
	return "not there"
}
