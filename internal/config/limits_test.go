package config

import (
	"reflect"
	"slices"
	"testing"
)

func TestTheConnectionLimitComesFromTheDescriptors(t *testing.T) {
	for _, tt := range []struct {
		descriptors uint64
		want        int
	}{{0, 16}, {128, 16}, {160, 16}, {1024, 448}, {65536, 32704}, {1 << 40, 1073741759}, {1<<64 - 1, 1073741759}} {
		if got := connectionLimit(tt.descriptors); got != tt.want {
			t.Errorf("%d descriptors: %d connections, want %d", tt.descriptors, got, tt.want)
		}
	}
	c := mustLoad(t, least...)
	if got, want := c.ConnectionLimit(), connectionLimit(Descriptors()); got != want {
		t.Errorf("without the variable: %d, want %d", got, want)
	}
	if got := mustLoad(t, with("POSTERN_LIMIT_CONNECTIONS=7")...).ConnectionLimit(); got != 7 {
		t.Errorf("with the variable: %d, want 7", got)
	}
}

func TestFewDescriptorsAreWarnedOf(t *testing.T) {
	for _, tt := range []struct {
		given       bool
		limit       int
		descriptors uint64
		want        string
	}{
		{false, 0, 100, "16 connections, all that 100 file descriptors are enough for: raise their limit (ulimit -n; LimitNOFILE= of a unit)"},
		{false, 0, 1024, ""}, {true, 10, 100, ""}, {true, 0, 100, ""}, {true, 17, 100, "100 file descriptors are enough for 16: set no more, or raise their limit (ulimit -n; LimitNOFILE= of a unit)"},
	} {
		if got := limitWarning(tt.given, tt.limit, tt.descriptors); got != tt.want {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}

func TestAMemoryLimitThatGoDoesNotReadIsSaid(t *testing.T) {
	for value, good := range map[string]bool{"": true, "off": true, "100": true, "1800MiB": true, "7B": true, "1800MB": false, "1.5GiB": false, "1800M": false} {
		_, p := Inspect(append(slices.Clone(least), "GOMEMLIMIT="+value))
		want := "GOMEMLIMIT: \"" + value + "\": Go does not start with it: write a number of bytes with B, KiB, MiB, GiB or TiB behind it, as in 1800MiB"
		if good && len(p) > 0 || !good && (len(p) != 1 || p[0] != want) {
			t.Errorf("%q: %q", value, p)
		}
	}
}

func TestTheAdminPortIsFoundInABrokenEnvironment(t *testing.T) {
	c, err := LoadAdmin([]string{"POSTERN_ADMIN_LISTEN=[::]:1", "POSTERN_ADMIN_TLS_CERT_FILE=/a.pem",
		"POSTERN_UPSTREAM_IMAP=nonsense", "POSTERN_NO_SUCH=1", "POSTERN_ADMIN_PPROF=perhaps"})
	if err != nil || c.AdminListen != "[::]:1" || c.AdminTLSCertFile != "/a.pem" {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := LoadAdmin(nil); err != nil || c.AdminListen != "127.0.0.1:9993" {
		t.Errorf("without variables: %+v, %v", c, err)
	}
	_, err = LoadAdmin([]string{"POSTERN_ADMIN_LISTEN=9993"})
	want := Problems{`POSTERN_ADMIN_LISTEN: "9993": not host:port: write :9993 for every address`}
	if !reflect.DeepEqual(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestInspectKeepsWhatIsRight(t *testing.T) {
	c, p := Inspect(with("POSTERN_TIMEOUT_IDLE=soon", "POSTERN_UPSTREAM_POP3=pop3s://h,x", "POSTERN_TLS_KEY_FILE=/k"))
	if len(p) != 2 || len(c.TLSKeyFile) != 1 || len(c.UpstreamIMAP) != 1 || len(c.UpstreamPOP3) != 1 {
		t.Errorf("got %+v, problems %q", c, p)
	}
}
