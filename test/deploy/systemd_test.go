package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/posterntest"
)

// settings are those of a systemd unit, by section and name, in their order.
func settings(t *testing.T, name string) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	section := ""
	for line := range strings.Lines(read(t, name)) {
		line = strings.TrimSpace(line)
		switch key, value, isSetting := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case isSetting:
			found[section+"."+key] = append(found[section+"."+key], value)
		default:
			t.Errorf("%s: %q", name, line)
		}
	}
	return found
}

func TestUnitIsHardened(t *testing.T) {
	got := settings(t, unit)
	for name, want := range map[string]string{
		"AmbientCapabilities":     "CAP_NET_BIND_SERVICE",
		"CapabilityBoundingSet":   "CAP_NET_BIND_SERVICE",
		"NoNewPrivileges":         "yes",
		"ProtectSystem":           "strict",
		"ProtectHome":             "yes",
		"PrivateTmp":              "yes",
		"PrivateDevices":          "yes",
		"ProtectClock":            "yes",
		"ProtectControlGroups":    "yes",
		"ProtectHostname":         "yes",
		"ProtectKernelLogs":       "yes",
		"ProtectKernelModules":    "yes",
		"ProtectKernelTunables":   "yes",
		"ProtectProc":             "invisible",
		"RestrictNamespaces":      "yes",
		"RestrictRealtime":        "yes",
		"RestrictSUIDSGID":        "yes",
		"LockPersonality":         "yes",
		"MemoryDenyWriteExecute":  "yes",
		"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
		"SystemCallArchitectures": "native",
		"SystemCallErrorNumber":   "EPERM",
		"UMask":                   "0077",
		"StateDirectory":          "postern",
		"StateDirectoryMode":      "0700",
	} {
		if v := got["Service."+name]; !slices.Equal(v, []string{want}) {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	filter := got["Service.SystemCallFilter"]
	if !slices.Equal(filter, []string{"@system-service", "~@privileged @resources", "setpriority"}) {
		t.Errorf("SystemCallFilter is %q", filter)
	}
	if user := got["Service.User"]; !slices.Equal(user, []string{"postern"}) {
		t.Errorf("it runs as %q", user)
	}
}

func TestUnitRunsWhatTheBinaryKnows(t *testing.T) {
	got := settings(t, unit)
	for name, want := range map[string]string{
		"Unit.After":              "network-online.target dovecot.service",
		"Service.ExecStartPre":    "-/usr/local/bin/postern check -offline",
		"Service.ExecStart":       "/usr/local/bin/postern serve",
		"Service.Restart":         "on-failure",
		"Service.KillMode":        "control-group",
		"Install.WantedBy":        "multi-user.target",
		"Service.EnvironmentFile": "/etc/postern/postern.env",
	} {
		if v := got[name]; !slices.Equal(v, []string{want}) {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	for _, command := range []string{"check", "serve"} {
		if code, out := run(t, nil, command, "-h"); code != 0 {
			t.Errorf("%s -h: exit code %d\n%s", command, code, out)
		}
	}
	if _, out := run(t, nil, "check", "-h"); !strings.Contains(out, "-offline") {
		t.Errorf("check knows no -offline:\n%s", out)
	}
}

// TestAReloadFailsVisibly runs what stands beside the signal: where that fails, systemd
// says that the reload has failed.
func TestAReloadFailsVisibly(t *testing.T) {
	lines := settings(t, unit)["Service.ExecReload"]
	if len(lines) != 1 { // systemd sends the signal by itself
		t.Fatalf("ExecReload is %q", lines)
	}
	command := strings.Fields(lines[0])
	if command[0] != "/usr/local/bin/postern" { // no "-", which would forgive
		t.Fatalf("it runs %q", command[0])
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	for text, want := range map[string]int{"mode: enforce\n": 0, "mode: lenient\n": 2, "": 2, "rules:\n\t- x\n": 2} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := run(t, map[string]string{
			"POSTERN_POLICY_FILE": file, "POSTERN_UPSTREAM_IMAP": "imap://127.0.0.1:1", "POSTERN_ADMIN_LISTEN": "127.0.0.1:0",
			"POSTERN_LISTEN_IMAPS": "127.0.0.1:0", "POSTERN_LISTEN_IMAP": "off",
			"POSTERN_TLS_CERT_FILE": pair.CertFile, "POSTERN_TLS_KEY_FILE": pair.KeyFile,
		}, command[1:]...)
		if code != want || want != 0 && !strings.Contains(out, file+":") {
			t.Errorf("%q: exit code %d, want %d\n%s", text, code, want, out)
		}
	}
}

// The sockets have the names that serve knows, and the addresses that it would have
// without them.
func TestSocketUnitsAreThoseOfTheListeners(t *testing.T) {
	cfg := taken(t, variables(read(t, "deploy/postern.env")))
	addrs := map[string][]string{"admin": {cfg.AdminListen}}
	for _, l := range cfg.Listeners() {
		for _, addr := range l.Addrs {
			addrs[l.Name] = append(addrs[l.Name], strings.TrimPrefix(addr, ":"))
		}
	}
	for name, want := range addrs {
		got := settings(t, "deploy/systemd/postern-"+name+".socket")
		if got := got["Socket.ListenStream"]; !slices.Equal(got, want) {
			t.Errorf("%s listens at %q, want %q", name, got, want)
		}
		for setting, want := range map[string]string{"Socket.FileDescriptorName": name, "Socket.Service": filepath.Base(unit), "Install.WantedBy": "sockets.target"} {
			if !slices.Equal(got[setting], []string{want}) {
				t.Errorf("%s: %s is %q, want %q", name, setting, got[setting], want)
			}
		}
	}
	if files, _ := filepath.Glob(filepath.Join(root, "deploy/systemd/*.socket")); len(files) != len(addrs) {
		t.Errorf("the socket units are %q", files)
	}
}

func TestUnitLeavesRoomForTheDrainAndForConnections(t *testing.T) {
	got := settings(t, unit)
	cfg := taken(t, variables(read(t, "deploy/postern.env")))
	timeout, err := time.ParseDuration(strings.Join(got["Service.TimeoutStopSec"], " "))
	if err != nil {
		t.Fatal(err)
	}
	checkStopTimeout(t, "TimeoutStopSec", timeout, cfg.TimeoutDrain)
	descriptors := 0
	if _, err := fmt.Sscan(strings.Join(got["Service.LimitNOFILE"], " "), &descriptors); err != nil {
		t.Fatal(err)
	}
	if sessions := (descriptors - 128) / 2; sessions < 32000 {
		t.Errorf("enough for %d sessions only", sessions)
	}
}

// The commented credential has to work for who takes the marks away.
func TestCredentialInTheUnitIsTaken(t *testing.T) {
	text := read(t, unit)
	const load, set = "#LoadCredential=", "#Environment=" + config.Prefix + "TLS_CERT_FILE=%d/"
	_, after, found := strings.Cut(text, load)
	id, _, _ := strings.Cut(after, ":")
	if !found || !strings.Contains(text, set+id+"\n") {
		t.Errorf("the credential %q is not the certificate", id)
	}
}
