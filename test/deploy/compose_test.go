package deploy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// composeFile is what the tests look at in a compose file.
type composeFile struct {
	Services map[string]composeService
	Configs  map[string]struct{ Content string }
	Networks map[string]struct {
		Internal bool
		IPAM     struct{ Config []struct{ Subnet string } } `yaml:"ipam"`
	}
}

type composeService struct {
	User            string
	ReadOnly        bool                                  `yaml:"read_only"`
	CapDrop         []string                              `yaml:"cap_drop"`
	CapAdd          []string                              `yaml:"cap_add"`
	SecurityOpt     []string                              `yaml:"security_opt"`
	StopGracePeriod time.Duration                         `yaml:"stop_grace_period"`
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Environment     map[string]string
	Ports           []string
	Networks        []string
	Volumes         []string
	Configs         []struct{ Source, Target string }
	Healthcheck     struct{ Test []string }
}

func composed(t *testing.T) composeFile {
	t.Helper()
	var f composeFile
	if err := documents(t, compose)[0].Decode(&f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestComposeRunsWithFewRights(t *testing.T) {
	f := composed(t)
	if len(f.Services) != 5 {
		t.Errorf("%d services", len(f.Services))
	}
	for name, s := range f.Services {
		uid, _, _ := strings.Cut(s.User, ":")
		if n, err := strconv.Atoi(uid); err != nil || n == 0 {
			t.Errorf("%s runs as %q", name, s.User)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read_only %v, cap_drop %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		for _, v := range s.Volumes {
			if strings.HasPrefix(v, ".") && !strings.HasSuffix(v, ":ro") {
				t.Errorf("%s may write to %s", name, v)
			}
		}
	}
}

func TestComposePublishesThePortsOfTheListeners(t *testing.T) {
	postern := composed(t).Services["postern"]
	cfg := taken(t, postern.Environment)
	var want []string
	for _, l := range cfg.Listeners() {
		want = append(want, fmt.Sprintf("%d:%d", wellKnown[l.Name], port(t, l.Addrs[0])))
		if port(t, l.Addrs[0]) < 1024 {
			t.Errorf("%s needs a capability", l.Name)
		}
	}
	want = append(want, fmt.Sprintf("127.0.0.1:9993:%d", port(t, cfg.AdminListen)))
	if !slices.Equal(postern.Ports, want) {
		t.Errorf("the ports are %v, want %v", postern.Ports, want)
	}
}

func TestComposeStopsInOrder(t *testing.T) {
	postern := composed(t).Services["postern"]
	checkStopTimeout(t, "stop_grace_period", postern.StopGracePeriod, taken(t, postern.Environment).TimeoutDrain)
	if postern.DependsOn["dovecot"].Condition == "" {
		t.Error("Dovecot may stop before Postern")
	}
}

// The Dovecot side believes headers from one network: the one that the two
// share, and that nobody else is in.
func TestComposeTrustsTheNetworkOfTheTwo(t *testing.T) {
	f := composed(t)
	server := f.Services["dovecot"]
	if len(server.Ports) > 0 || len(server.Networks) != 1 {
		t.Fatalf("dovecot has the ports %v and the networks %v", server.Ports, server.Networks)
	}
	name := server.Networks[0]
	shared := f.Networks[name]
	if !shared.Internal || !slices.Contains(f.Services["postern"].Networks, name) {
		t.Errorf("the network is %+v, Postern is in %v", shared, f.Services["postern"].Networks)
	}
	trusted := setting(t, f.Configs["dovecot-postern"].Content, "haproxy_trusted_networks")
	if len(shared.IPAM.Config) != 1 || shared.IPAM.Config[0].Subnet != trusted {
		t.Errorf("dovecot trusts %s, the network is %+v", trusted, shared.IPAM)
	}
	if _, err := netip.ParsePrefix(trusted); err != nil {
		t.Error(err)
	}
	for _, c := range server.Configs {
		if f.Configs[c.Source].Content == "" || !strings.HasPrefix(c.Target, "/etc/dovecot/conf.d/") {
			t.Errorf("config %+v", c)
		}
	}
}

func TestComposeMountsCertificatesAsADirectory(t *testing.T) {
	postern := composed(t).Services["postern"]
	dir := taken(t, postern.Environment).TLSCertFile[0]
	if !slices.Contains(postern.Volumes, "tls:"+dir+":ro") {
		t.Errorf("%s is not mounted: %v", dir, postern.Volumes)
	}
}

// setting is the value of a setting of Dovecot's that stands once in a text.
func setting(t *testing.T, text, name string) string {
	t.Helper()
	var values []string
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == name {
			values = append(values, strings.TrimSpace(value))
		}
	}
	if len(values) != 1 {
		t.Fatalf("%s stands there %d times", name, len(values))
	}
	return values[0]
}
