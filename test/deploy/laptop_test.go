package deploy

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"postern/internal/config"
	"postern/internal/posterntest"
)

// project is the compose file as Docker Compose reads it: against its schema, and with
// every network, volume, configuration and service that is named looked up.
func project(t *testing.T) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(root, compose)}, cli.WithName("mail"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// content is what a service finds at a path, where it comes from a configuration or a file.
func content(t *testing.T, p *types.Project, service, target string) string {
	t.Helper()
	for _, c := range p.Services[service].Configs {
		if c.Target == target {
			return p.Configs[c.Source].Content
		}
	}
	for _, v := range p.Services[service].Volumes {
		if rel, err := filepath.Rel(v.Target, target); err == nil && v.Type == types.VolumeTypeBind && !strings.HasPrefix(rel, "..") {
			text, err := os.ReadFile(filepath.Join(v.Source, rel))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
	t.Fatalf("%s has no %s", service, target)
	return ""
}

// made runs the command that makes the certificates, and returns where they are.
func made(t *testing.T, p *types.Project) string {
	t.Helper()
	s, dir := p.Services["certificate"], t.TempDir()
	for range 2 { // the second time it leaves them alone
		cmd := exec.Command(s.Command[0], s.Command[1:]...)
		cmd.Dir = dir
		before, _ := os.ReadFile(filepath.Join(dir, "tls.crt"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if after, err := os.ReadFile(filepath.Join(dir, "tls.crt")); err != nil || before != nil && string(after) != string(before) {
			t.Errorf("the certificate is made anew, %v", err)
		}
	}
	for _, name := range []string{"tls.key", "rsa.key"} { // for the group, and nobody else
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	return dir
}

func TestComposeNeedsNothingBesideIt(t *testing.T) {
	p := project(t)
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if v.Source == "tls" && name != "certificate" && s.DependsOn["certificate"].Condition != types.ServiceConditionCompletedSuccessfully {
				t.Errorf("%s does not wait for the certificate", name)
			}
		}
	}
	s := p.Services["postern"]
	tls, token := made(t, p), filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(content(t, p, "postern", *s.Environment["POSTERN_ADMIN_TOKEN_FILE"])), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := make(map[string]string)
	for name, value := range s.Environment {
		vars[name] = *value
		switch {
		case strings.Contains(name, "LISTEN"):
			vars[name] = posterntest.FreeAddr(t)
		case strings.HasPrefix(*value, "/tls"):
			vars[name] = tls + strings.TrimPrefix(*value, "/tls")
		}
	}
	vars[config.Prefix+"ADMIN_TOKEN_FILE"], vars[config.Prefix+"LEDGER_URL"] = token, "sqlite:"+filepath.Join(t.TempDir(), "ledger.db")
	if code, out := run(t, vars, "check", "-offline"); code != 0 || strings.Contains(strings.ToLower(out), "warning") {
		t.Errorf("check ends with %d:\n%s", code, out)
	}
	if dir := path.Dir(strings.TrimPrefix(*s.Environment["POSTERN_LEDGER_URL"], "sqlite:")); !strings.Contains(read(t, "Dockerfile"), "-m 700 /out/root"+dir+"\n") {
		t.Errorf("the image has no %s that a volume could take its owner from", dir)
	}
}

// The accounts of the rehearsal, and no others.
func TestComposeHasAccounts(t *testing.T) {
	p := project(t)
	auth := content(t, p, "dovecot", "/etc/dovecot/conf.d/auth.conf")
	if accounts := content(t, p, "dovecot", setting(t, auth, "passwd_file_path")); strings.Count(auth, "passdb") != 1 || strings.Count(accounts, "@example.org:{PLAIN}rehearsal\n") != 2 {
		t.Errorf("%s\n%s", auth, accounts)
	}
}

func TestComposeHasPrometheusWithTheRules(t *testing.T) {
	p := project(t)
	const file, rules = "/etc/prometheus/prometheus.yml", "/etc/prometheus/postern-rules.yaml"
	text := content(t, p, "prometheus", file)
	if content(t, p, "prometheus", rules) != read(t, "deploy/prometheus/postern-rules.yaml") || !strings.Contains(text, rules) {
		t.Errorf("the rules are not read:\n%s", text)
	}
	cert := filepath.Join(made(t, p), "tls.crt")
	at, err := filepath.Abs(filepath.Join(root, "deploy/prometheus/postern-rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(conf, []byte(strings.NewReplacer(rules, at, "/tls/tls.crt", cert).Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "check", "config", conf).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"job_name: postern\n", "scheme: https\n", `"postern` + *p.Services["postern"].Environment["POSTERN_ADMIN_LISTEN"] + `"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// Strictly, since Grafana passes over what it does not know.
func strictly(t *testing.T, text string, v any) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
}

func TestComposeHasGrafanaWithTheDashboard(t *testing.T) {
	p := project(t)
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool `yaml:"isDefault"`
		}
	}
	strictly(t, content(t, p, "grafana", "/etc/grafana/provisioning/datasources/postern.yaml"), &sources)
	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type string
			Options    struct{ Path string }
		}
	}
	strictly(t, content(t, p, "grafana", "/etc/grafana/provisioning/dashboards/postern.yaml"), &dashboards)
	if len(sources.Datasources) != 1 || len(dashboards.Providers) != 1 || sources.APIVersion != 1 || dashboards.APIVersion != 1 {
		t.Fatalf("%+v\n%+v", sources, dashboards)
	}
	source, provider := sources.Datasources[0], dashboards.Providers[0]
	u, err := url.Parse(source.URL)
	if err != nil || !source.IsDefault || source.Type != "prometheus" || source.UID == "" || source.Name == "" || source.Access != "proxy" {
		t.Fatalf("%+v: %v", source, err)
	}
	server, ok := p.Services[u.Hostname()]
	if !ok || server.Ports[0].Target != 9090 || u.Port() != "9090" {
		t.Errorf("nobody is at %s", u)
	}
	home := *p.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if provider.Type != "file" || provider.Name == "" || path.Dir(home) != provider.Options.Path {
		t.Errorf("%+v, and the home is %s", provider, home)
	}
	// It asks the data source that the reader chooses, and the default is the first.
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Type, Query any }
		}
	}
	if err := json.Unmarshal([]byte(content(t, p, "grafana", home)), &dashboard); err != nil {
		t.Fatal(err)
	}
	if v := dashboard.Templating.List[0]; v.Name != "datasource" || v.Type != "datasource" || v.Query != source.Type {
		t.Errorf("the dashboard takes %+v", v)
	}
	for _, name := range []string{"prometheus", "grafana"} {
		if ports := p.Services[name].Ports; len(ports) != 1 || ports[0].HostIP != "127.0.0.1" {
			t.Errorf("%s is on %+v", name, ports)
		}
	}
}
