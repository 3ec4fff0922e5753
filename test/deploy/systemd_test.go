package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
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
		"RestrictAddressFamilies": "AF_INET AF_INET6",
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
	if !slices.Equal(filter, []string{"@system-service", "~@privileged @resources"}) {
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
		"Service.ExecReload":      "/bin/kill -HUP $MAINPID",
		"Service.Restart":         "on-failure",
		"Service.KillMode":        "mixed",
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
