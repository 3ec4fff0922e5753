package deploy

import (
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/policy"
)

// What the tests below look at, in the words of the Kubernetes API.
type (
	deployment struct {
		Spec struct {
			Selector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			}
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     pod
			}
		}
	}
	pod struct {
		EnableServiceLinks            *bool `yaml:"enableServiceLinks"`
		AutomountServiceAccountToken  *bool `yaml:"automountServiceAccountToken"`
		TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
		HostNetwork                   bool  `yaml:"hostNetwork"`
		SecurityContext               struct {
			RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
			FSGroup        int                   `yaml:"fsGroup"`
			SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		InitContainers []container `yaml:"initContainers"`
		Containers     []container
		Volumes        []map[string]any
	}
	container struct {
		Name string
		// RestartPolicy is Always for a native sidecar.
		RestartPolicy string `yaml:"restartPolicy"`
		Env           []struct{ Name, Value string }
		Ports         []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		Lifecycle struct {
			PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		SecurityContext struct {
			RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
			RunAsUser                int   `yaml:"runAsUser"`
			Privileged               bool  `yaml:"privileged"`
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Add, Drop []string }
		} `yaml:"securityContext"`
		Resources    struct{ Requests, Limits map[string]string }
		VolumeMounts []volumeMount `yaml:"volumeMounts"`
	}
	volumeMount struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		SubPath   string `yaml:"subPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	}
	probe struct {
		HTTPGet struct{ Path, Port, Scheme string } `yaml:"httpGet"`
	}
	service struct {
		Spec struct {
			ExternalTrafficPolicy string `yaml:"externalTrafficPolicy"`
			Selector              map[string]string
			Ports                 []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
)

// kind decodes the one document of that kind.
func kind(t *testing.T, name string, into any) {
	t.Helper()
	found := 0
	for _, doc := range documents(t, sidecar) {
		var head struct{ Kind string }
		if err := doc.Decode(&head); err != nil {
			t.Fatal(err)
		}
		if head.Kind != name {
			continue
		}
		found++
		if err := doc.Decode(into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if found != 1 {
		t.Fatalf("%d documents of kind %s", found, name)
	}
}

// configMap is the data of the ConfigMap of that name.
func configMap(t *testing.T, name string) map[string]string {
	t.Helper()
	for _, doc := range documents(t, sidecar) {
		var c struct {
			Kind     string
			Metadata struct{ Name string }
			Data     map[string]string
		}
		if err := doc.Decode(&c); err == nil && c.Kind == "ConfigMap" && c.Metadata.Name == name {
			return c.Data
		}
	}
	t.Fatalf("no ConfigMap %s", name)
	return nil
}

func sidecarPod(t *testing.T) pod {
	t.Helper()
	var d deployment
	kind(t, "Deployment", &d)
	return d.Spec.Template.Spec
}

func (p pod) container(t *testing.T, name string) container {
	t.Helper()
	all := slices.Concat(p.InitContainers, p.Containers)
	i := slices.IndexFunc(all, func(c container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no container %s", name)
	}
	return all[i]
}

func (c container) vars() map[string]string {
	vars := make(map[string]string)
	for _, v := range c.Env {
		if strings.HasPrefix(v.Name, config.Prefix) {
			vars[v.Name] = v.Value
		}
	}
	return vars
}

func (c container) port(name string) int {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return 0
}

func port(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func no(b *bool) bool { return b != nil && !*b }

// The profile "restricted" of the Pod Security Standards, for every container.
func TestSidecarFitsARestrictedNamespace(t *testing.T) {
	p := sidecarPod(t)
	if n := len(p.InitContainers) + len(p.Containers); n != 2 {
		t.Errorf("%d containers", n)
	}
	if s := p.SecurityContext; !s.RunAsNonRoot || p.HostNetwork {
		t.Errorf("the pod: %+v", s)
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
		if !s.RunAsNonRoot || s.RunAsUser <= 0 || s.Privileged || !no(s.AllowPrivilegeEscalation) || !s.ReadOnlyRootFilesystem {
			t.Errorf("%s: %+v", c.Name, s)
		}
		if !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: capabilities %+v", c.Name, s.Capabilities)
		}
		if c.Resources.Requests["cpu"] == "" || c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
			t.Errorf("%s: resources %v", c.Name, c.Resources)
		}
		for _, p := range c.Ports {
			if p.ContainerPort < 1024 {
				t.Errorf("%s: port %s is %d", c.Name, p.Name, p.ContainerPort)
			}
		}
	}
	if got := p.SecurityContext.SeccompProfile.Type; got != "RuntimeDefault" {
		t.Errorf("the profile of seccomp is %q", got)
	}
	if !no(p.EnableServiceLinks) || !no(p.AutomountServiceAccountToken) {
		t.Error("the pod is given more than it needs")
	}
}

func TestSidecarPortsMatch(t *testing.T) {
	c := sidecarPod(t).container(t, "postern")
	cfg := taken(t, c.vars())
	var s service
	kind(t, "Service", &s)
	for _, l := range cfg.Listeners() {
		if got := port(t, l.Addrs[0]); got != c.port(l.Name) {
			t.Errorf("%s listens on %d, the container says %d", l.Name, got, c.port(l.Name))
		}
		found := false
		for _, p := range s.Spec.Ports {
			found = found || p.Name == l.Name && p.TargetPort == l.Name && p.Port == wellKnown[l.Name]
		}
		if !found {
			t.Errorf("the Service does not lead from %d to %s", wellKnown[l.Name], l.Name)
		}
	}
	if len(s.Spec.Ports) != len(wellKnown) {
		t.Errorf("the Service has the ports %v", s.Spec.Ports)
	}
	if s.Spec.ExternalTrafficPolicy != "Local" {
		t.Error("the Service hides the addresses of clients")
	}
	var d deployment
	kind(t, "Deployment", &d)
	for name, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Metadata.Labels[name] != value || s.Spec.Selector[name] != value {
			t.Errorf("%s=%s is not selected everywhere", name, value)
		}
	}
}

func TestSidecarProbesAskTheAdminPort(t *testing.T) {
	c := sidecarPod(t).container(t, "postern")
	cfg := taken(t, c.vars())
	if host, _, _ := net.SplitHostPort(cfg.AdminListen); host != "" || port(t, cfg.AdminListen) != c.port("admin") {
		t.Errorf("the admin port is bound to %s, the container says %d", cfg.AdminListen, c.port("admin"))
	}
	for path, p := range map[string]probe{"/readyz": c.ReadinessProbe, "/healthz": c.LivenessProbe} {
		tls := cfg.AdminTLSCertFile != ""
		if p.HTTPGet.Path != path || p.HTTPGet.Port != "admin" || (p.HTTPGet.Scheme == "HTTPS") != tls {
			t.Errorf("a probe asks %+v, not %s", p.HTTPGet, path)
		}
	}
}

// Postern is told to stop after its pause, and the pod is cut only after its drain.
// A native sidecar starts before the main containers and is stopped after them:
// that has to be the mail server.
func TestSidecarStopsInOrder(t *testing.T) {
	p := sidecarPod(t)
	postern, server := p.container(t, "postern"), p.container(t, "dovecot")
	drain := taken(t, postern.vars()).TimeoutDrain
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	pause := seconds(postern.Lifecycle.PreStop.Sleep.Seconds)
	if pause == 0 {
		t.Error("Postern has no pause")
	}
	if len(p.InitContainers) != 1 || server.RestartPolicy != "Always" || server.Lifecycle.PreStop.Sleep.Seconds != 0 || len(p.Containers) != 1 {
		t.Error("Dovecot is not the one native sidecar of Postern")
	}
	grace := seconds(p.TerminationGracePeriodSeconds)
	checkStopTimeout(t, "terminationGracePeriodSeconds", grace-pause, drain)
}

// A file that is mounted by itself (subPath) is never swapped.
func TestSidecarMountsCertificatesAsADirectory(t *testing.T) {
	p := sidecarPod(t)
	c := p.container(t, "postern")
	cfg := taken(t, c.vars())
	for _, m := range c.VolumeMounts {
		if slices.Contains(cfg.TLSCertFile, m.MountPath) {
			if m.SubPath != "" || !m.ReadOnly {
				t.Errorf("mounted as %+v", m)
			}
			if p.SecurityContext.FSGroup == 0 {
				t.Error("no group may read the keys")
			}
			if !slices.ContainsFunc(p.Volumes, func(v map[string]any) bool { return v["name"] == m.Name }) {
				t.Errorf("there is no volume %s", m.Name)
			}
			return
		}
	}
	t.Errorf("%v is not mounted", cfg.TLSCertFile)
}

// The policy of the rehearsal is one that is taken, and arrives when it changes.
func TestSidecarMountsThePolicyAsADirectory(t *testing.T) {
	p := sidecarPod(t)
	c := p.container(t, "postern")
	dir, file := path.Split(taken(t, c.vars()).PolicyFile)
	i := slices.IndexFunc(c.VolumeMounts, func(m volumeMount) bool { return m.MountPath == path.Clean(dir) })
	if i < 0 {
		t.Fatalf("%s is not mounted", dir)
	}
	m := c.VolumeMounts[i]
	if m.SubPath != "" || !m.ReadOnly {
		t.Errorf("mounted as %+v", m)
	}
	for _, v := range p.Volumes {
		if v["name"] != m.Name {
			continue
		}
		source, _ := v["configMap"].(map[string]any)
		name, _ := source["name"].(string)
		if got, err := policy.Parse([]byte(configMap(t, name)[file])); err != nil || got.Mode() != policy.Observe {
			t.Errorf("%s in %s: %v", file, name, err)
		}
		return
	}
	t.Errorf("there is no volume %s", m.Name)
}
