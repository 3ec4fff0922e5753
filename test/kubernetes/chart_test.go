package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/strvals"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// charts are values beside the least, and what is special about what comes of them.
var charts = map[string]struct {
	values    string
	listeners []string // imaps and imap if empty
	drain     time.Duration
	egress    []string
	kinds     []string // beside those that are always there
}{
	"the least": {},
	"both protocols and several servers": {
		values: `
config:
  UPSTREAM_IMAP: "imaps://a.example.org:10993, imaps://b.example.org,imap+starttls://c.example.org,imap://d.example.org"
  UPSTREAM_POP3: pop3s://a.example.org,pop3://d.example.org:10110,pop3+starttls://[2001:db8::1]
  UPSTREAM_PASSTHROUGH_IMAPS: old.example.org:9993
  UPSTREAM_PROXY_PROTOCOL: v2
  TIMEOUT_DRAIN: 1h0.5s
  LIMIT_CONNECTIONS: 2000000
  LEDGER_RETENTION: 180d
  PROXY_PROTOCOL_FROM: 10.0.0.0/8,192.0.2.1
`,
		listeners: []string{"imap", "imaps", "pop3", "pop3s"},
		drain:     time.Hour + 500*time.Millisecond,
		egress:    []string{"10110", "10993", "110", "143", "993", "995", "9993"},
	},
	"POP3 with implicit TLS alone": {
		values:    "config: {UPSTREAM_IMAP: '', UPSTREAM_POP3: 'pop3s://dovecot.mail.svc'}\nlisteners: {pop3: false}\n",
		listeners: []string{"pop3s"},
		egress:    []string{"995"},
	},
	"everything": {
		values: `
fullnameOverride: gate
imagePullSecrets: [{name: registry}]
files:
  UPSTREAM_CA_FILE: {configMap: internal-ca, key: ca.crt}
  TLS_TICKET_KEYS_FILE: {secret: tickets, key: keys}
  ADMIN_TOKEN_FILE: {secret: admin, key: token}
  ADMIN_TLS_CERT_FILE: {secret: admin-tls, key: tls.crt}
  ADMIN_TLS_KEY_FILE: {secret: admin-tls, key: tls.key}
  LEDGER_IDENTITY_KEY_FILE: {secret: identity, key: key}
  postgres.crt: {configMap: internal-ca, key: ca.crt}
config: {UPSTREAM_IMAP: "imap+starttls://dovecot.mail.svc", LEDGER_IDENTITY: hashed, TIMEOUT_DRAIN: 90s}
policyConfigMap: policy-of-ours
certificate: {enabled: true, dnsNames: [mail.example.org], issuerRef: {name: letsencrypt, kind: ClusterIssuer}}
ledger: {secretName: postern-database}
service:
  annotations: {example.org/proxy-protocol: "v2"}
  loadBalancerClass: example.org/nlb
  loadBalancerSourceRanges: [192.0.2.0/24]
autoscaling: {enabled: true}
networkPolicy:
  clients: [{ipBlock: {cidr: 192.0.2.0/24}}]
  upstreams: [{podSelector: {matchLabels: {app: dovecot}}}]
  database: [{podSelector: {matchLabels: {app: postgres}}}]
podMonitor: {enabled: true, labels: {release: prometheus}, tlsConfig: {serverName: mail.example.org}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
podLabels: {team: mail}
podAnnotations: {example.org/note: mail}
nodeSelector: {kubernetes.io/arch: arm64}
tolerations: [{key: mail, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: mail
resources: {limits: {memory: 512Mi, cpu: "2"}}
`,
		drain:  90 * time.Second,
		egress: []string{"143", "5432"},
		kinds:  []string{"*v1.Certificate", "*v1.Certificate", "*v1.PodMonitor", "*v1.PrometheusRule", "*v2.HorizontalPodAutoscaler"},
	},
	"inside the cluster without a pause": {
		values: "service: {type: ClusterIP}\npreStopSeconds: 0\nreplicas: 1\nnetworkPolicy: {metrics: []}\n",
	},
}

func TestChartOverATableOfValues(t *testing.T) {
	for name, c := range charts {
		t.Run(name, func(t *testing.T) {
			objects, _ := template(t, c.values)
			if c.listeners == nil {
				c.listeners = []string{"imap", "imaps"}
			}
			if c.egress == nil {
				c.egress = []string{"143"}
			}
			if c.drain == 0 {
				c.drain = 30 * time.Second
			}
			checkLint(t, parse(t, c.values))
			checkKinds(t, objects, c.kinds)
			pod := one[*apps.Deployment](t, objects).Spec.Template
			checkRestricted(t, &pod.ObjectMeta, &pod.Spec)
			checkEnvironment(t, &pod.Spec, objects)
			checkGrace(t, &pod.Spec, c.drain)
			checkListeners(t, objects, c.listeners)
			checkProbes(t, pod.Spec.Containers[0])
			checkSelectors(t, objects)
			checkEgress(t, objects, c.egress)
			if limit := pod.Spec.Containers[0].Resources.Limits.Memory().Value() >> 20; value(pod.Spec.Containers[0], "GOMEMLIMIT") != fmt.Sprintf("%dMiB", limit*60/100) {
				t.Errorf("GOMEMLIMIT is %s of %d MiB", value(pod.Spec.Containers[0], "GOMEMLIMIT"), limit)
			}
		})
	}
}

// checkLint takes no warning either.
func checkLint(t *testing.T, values map[string]any) {
	t.Helper()
	for _, m := range lint.RunAll(chartDir, values, namespace).Messages {
		if m.Severity > support.InfoSev {
			t.Error("lint:", m)
		}
	}
}

func checkKinds(t *testing.T, objects []runtime.Object, more []string) {
	t.Helper()
	var got []string
	for _, o := range objects {
		got = append(got, fmt.Sprintf("%T", o))
		if m := o.(meta.Object); m.GetNamespace() != namespace || m.GetLabels()["app.kubernetes.io/instance"] != "mail" {
			t.Errorf("%T %s is in %q, with the labels %v", o, m.GetName(), m.GetNamespace(), m.GetLabels())
		}
	}
	want := append([]string{"*v1.Deployment", "*v1.NetworkPolicy", "*v1.PodDisruptionBudget", "*v1.Service"}, more...)
	if !slices.Contains(more, "*v1.Certificate") { // those have a policy of their own
		want = append(want, "*v1.ConfigMap")
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("rendered %v, not %v", got, want)
	}
}

// wellKnown are the ports that mail programs go to.
var wellKnown = map[string]int32{"imaps": 993, "pop3s": 995, "imap": 143, "pop3": 110}

// What Postern listens on, what the container and the Service say, and what the
// NetworkPolicy lets in, are one.
func checkListeners(t *testing.T, objects []runtime.Object, want []string) {
	t.Helper()
	c := one[*apps.Deployment](t, objects).Spec.Template.Spec.Containers[0]
	inPod := map[string]string{"admin": strings.TrimPrefix(value(c, "POSTERN_ADMIN_LISTEN"), ":")}
	for name := range wellKnown {
		if addr := value(c, "POSTERN_LISTEN_"+strings.ToUpper(name)); addr != "off" {
			inPod[name] = strings.TrimPrefix(addr, ":")
		}
	}
	if got := slices.Sorted(maps.Keys(inPod)); !slices.Equal(got, append([]string{"admin"}, want...)) {
		t.Errorf("Postern listens on %v", got)
	}
	named := map[string]string{}
	for _, p := range c.Ports {
		named[p.Name] = fmt.Sprint(p.ContainerPort)
	}
	if !maps.Equal(named, inPod) {
		t.Errorf("the container has the ports %v, Postern listens on %v", named, inPod)
	}
	service := one[*core.Service](t, objects).Spec
	var reached []string
	for _, p := range service.Ports {
		reached = append(reached, p.Name)
		if p.Port != wellKnown[p.Name] || p.TargetPort.StrVal != p.Name {
			t.Errorf("the Service leads %d to %s as %s", p.Port, p.TargetPort.StrVal, p.Name)
		}
	}
	if slices.Sort(reached); !slices.Equal(reached, want) {
		t.Errorf("the Service leads to %v", reached)
	}
	if service.Type != core.ServiceTypeClusterIP && service.ExternalTrafficPolicy != core.ServiceExternalTrafficPolicyLocal {
		t.Error("the Service hides the addresses of clients")
	}
	for _, p := range all[*networking.NetworkPolicy](objects) {
		var open []string
		for _, rule := range p.Spec.Ingress {
			for _, p := range rule.Ports {
				open = append(open, p.Port.StrVal)
			}
		}
		if !slices.Equal(open, append(slices.Clone(want), "admin")) {
			t.Errorf("the NetworkPolicy lets in %v", open)
		}
	}
}

func checkProbes(t *testing.T, c core.Container) {
	t.Helper()
	tls := value(c, "POSTERN_ADMIN_TLS_CERT_FILE") != ""
	for path, probes := range map[string][]*core.Probe{"/readyz": {c.ReadinessProbe}, "/healthz": {c.LivenessProbe, c.StartupProbe}} {
		for _, p := range probes {
			if p == c.StartupProbe && p == nil {
				continue
			}
			if p.HTTPGet.Path != path || p.HTTPGet.Port.StrVal != "admin" || (p.HTTPGet.Scheme == core.URISchemeHTTPS) != tls {
				t.Errorf("a probe asks %+v, not %s", p.HTTPGet, path)
			}
		}
	}
}

// Whatever selects pods selects these.
func checkSelectors(t *testing.T, objects []runtime.Object) {
	t.Helper()
	d := one[*apps.Deployment](t, objects)
	selectors := map[string]map[string]string{
		"Deployment":          d.Spec.Selector.MatchLabels,
		"Service":             one[*core.Service](t, objects).Spec.Selector,
		"NetworkPolicy":       one[*networking.NetworkPolicy](t, objects).Spec.PodSelector.MatchLabels,
		"PodDisruptionBudget": one[*disruption.PodDisruptionBudget](t, objects).Spec.Selector.MatchLabels,
	}
	spread := d.Spec.Template.Spec.TopologySpreadConstraints
	if len(spread) != 2 {
		t.Errorf("spread over %+v", spread)
	}
	for _, s := range spread {
		selectors[s.TopologyKey] = s.LabelSelector.MatchLabels
	}
	for _, m := range all[*monitoring.PodMonitor](objects) {
		selectors["PodMonitor"] = m.Spec.Selector.MatchLabels
	}
	for what, labels := range selectors {
		if len(labels) < 2 {
			t.Errorf("%s selects by %v", what, labels)
		}
		for name, value := range labels {
			if d.Spec.Template.Labels[name] != value {
				t.Errorf("%s does not select the pods: %s=%s", what, name, value)
			}
		}
	}
	hpas := all[*autoscaling.HorizontalPodAutoscaler](objects)
	if (d.Spec.Replicas == nil) != (len(hpas) == 1) {
		t.Error("two, or none, say how many replicas there are")
	}
	for _, hpa := range hpas {
		if ref := hpa.Spec.ScaleTargetRef; ref.Kind != "Deployment" || ref.Name != d.Name || ref.APIVersion != "apps/v1" {
			t.Errorf("%+v is scaled", ref)
		}
	}
}

// checkEgress expects names (53) and these ports.
func checkEgress(t *testing.T, objects []runtime.Object, want []string) {
	t.Helper()
	var got []string
	for _, rule := range one[*networking.NetworkPolicy](t, objects).Spec.Egress {
		for _, p := range rule.Ports {
			if port := p.Port.String(); port != "53" {
				got = append(got, port)
			}
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("the pod may connect to %v, not %v", got, want)
	}
}

// The defaults lack what only the operator knows, which is no error of the chart.
func TestChartLintsWithoutValues(t *testing.T) {
	for _, m := range lint.RunAll(chartDir, nil, namespace).Messages {
		if m.Severity == support.ErrorSev {
			t.Error(m)
		}
	}
}

// TestDocumentedInstallation renders what docs/install.md has operators type.
func TestDocumentedInstallation(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, _ := strings.Cut(string(text), "helm install postern deploy/helm/postern \\\n")
	command, _, _ = strings.Cut(command, "\n```")
	values, policy := map[string]any{}, ""
	for line := range strings.Lines(command) {
		flag, arg, ok := strings.Cut(strings.Trim(line, " \\\n"), " ")
		if file, isPolicy := strings.CutPrefix(arg, "policy="); isPolicy && flag == "--set-file" {
			content, err := os.ReadFile(root + "/" + file)
			if err != nil {
				t.Fatal(err)
			}
			policy = string(content)
			values["policy"] = policy
		} else if err := strvals.ParseInto(strings.Trim(arg, "'"), values); err != nil || flag != "--set" || !ok {
			t.Fatalf("%q: %v", line, err)
		}
	}
	files, err := render(values)
	if err != nil || policy == "" {
		t.Fatal(err)
	}
	rendered := files["postern/templates/policy.yaml"]
	if got := one[*core.ConfigMap](t, decode(t, "policy.yaml", rendered)).Data["policy.yaml"]; got != policy {
		t.Errorf("the policy has become\n%s", got)
	}
	pod := one[*apps.Deployment](t, decode(t, "deployment.yaml", files["postern/templates/deployment.yaml"])).Spec.Template.Spec
	if got := value(pod.Containers[0], "POSTERN_ADMIN_TOKEN_FILE"); got != "/files/ADMIN_TOKEN_FILE" {
		t.Errorf("the report has the token in %q", got)
	}
	if notes := files["postern/templates/NOTES.txt"]; strings.Contains(notes, "WARNING") || !strings.Contains(notes, "exec deployment/mail-postern -- /postern report\n") {
		t.Errorf("the notes say:\n%s", notes)
	}
}

func TestChartRefuses(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"a misspelt value":                 {"replicaCount: 3", "replicaCount"},
		"a misspelt value further down":    {"service: {externalTraficPolicy: Local}", "externalTraficPolicy"},
		"a misspelt variable":              {"config: {UPSTREAM_IMPA: imap://a}", "UPSTREAM_IMPA"},
		"a variable with a file":           {"config: {ADMIN_TOKEN_FILE: /token}", "ADMIN_TOKEN_FILE"},
		"a file of a variable without one": {"files: {LOG_LEVEL: {secret: a, key: b}}", "LOG_LEVEL"},
		"a file from two places":           {"files: {ADMIN_TOKEN_FILE: {secret: a, configMap: b, key: c}}", "ADMIN_TOKEN_FILE"},
		"off without quotes":               {"config: {UPSTREAM_PROXY_PROTOCOL: off}", "UPSTREAM_PROXY_PROTOCOL"},
		"a drain without a unit":           {"config: {TIMEOUT_DRAIN: '30'}", "TIMEOUT_DRAIN"},
		"memory as a number":               {"resources: {limits: {memory: 1073741824}}", "memory"},
		"no replica":                       {"replicas: 0", "replicas"},
		"no mail server":                   {"config: {UPSTREAM_IMAP: ''}", "set config.UPSTREAM_IMAP"},
		"no listener":                      {"listeners: {imaps: false, imap: false}", "all listeners"},
		"no certificate":                   {"tls: {secretNames: []}", "set tls.secretNames"},
		"no image":                         {"image: {repository: ''}", "set image.repository"},
		"a certificate for no name":        {"certificate: {enabled: true}", "set certificate.dnsNames"},
		"a policy that is not YAML":        {"policy: 'mode: [observe'", "policy: "},
		"more connections than the limit":  {"autoscaling: {enabled: true, connections: 15000}", "below config.LIMIT_CONNECTIONS"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(parse(t, c.values)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestChartNotes(t *testing.T) {
	const (
		gone  = "gone when a pod is"
		apart = "one for each of up to"
		keys  = "TLS_TICKET_KEYS_FILE"
		nodes = "the address of a node"
	)
	observe := "policy: '{mode: observe}'\n"
	rule := "policy: '{mode: enforce, rules: [{name: a, mode: explain, match: {port: [10993]}}]}'\n"
	shared := "ledger: {secretName: postern-database}\n"
	tickets := "files: {TLS_TICKET_KEYS_FILE: {secret: tickets, key: keys}}\n"
	for values, want := range map[string][]string{
		"replicas: 1":                                                             nil,
		"replicas: 1\n" + observe:                                                 {gone},
		"replicas: 1\n" + rule:                                                    {gone},
		"replicas: 1\npolicyConfigMap: elsewhere":                                 {gone},
		"replicas: 1\n" + observe + shared:                                        nil,
		"replicas: 2\n" + tickets:                                                 {apart},
		"replicas: 2\n" + observe:                                                 {gone, apart, keys},
		"replicas: 2\n" + observe + shared:                                        {keys},
		"replicas: 2\n" + shared + tickets:                                        nil,
		"replicas: 1\nautoscaling: {enabled: true}\n":                             {apart, keys},
		"replicas: 1\nservice: {externalTrafficPolicy: Cluster}":                  {nodes},
		"replicas: 1\nservice: {type: ClusterIP, externalTrafficPolicy: Cluster}": nil,
		"replicas: 1\nservice: {externalTrafficPolicy: Cluster}\nconfig: {UPSTREAM_IMAP: imap://a, PROXY_PROTOCOL_FROM: 10.0.0.0/8}": nil,
	} {
		_, notes := template(t, values)
		if !strings.Contains(notes, " 143 (imap) 993 (imaps).") {
			t.Errorf("no ports in\n%s", notes)
		}
		if !strings.Contains(notes, "set files.ADMIN_TOKEN_FILE") || strings.Contains(notes, "/postern report") {
			t.Errorf("a report without a token in\n%s", notes)
		}
		for _, sentence := range []string{gone, apart, keys, nodes} {
			if strings.Contains(notes, sentence) != slices.Contains(want, sentence) {
				t.Errorf("with\n%s\nthe notes say:\n%s", values, notes)
			}
		}
	}
}

func TestChartHasTheRulesOfPrometheus(t *testing.T) {
	objects, _ := template(t, charts["everything"].values)
	text, err := os.ReadFile(root + "/deploy/prometheus/postern-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	unmarshal(t, text, &want)
	got := one[*monitoring.PrometheusRule](t, objects)
	if len(want.Groups) == 0 || !equality.Semantic.DeepEqual(got.Spec, want) {
		t.Error("they differ")
	}
	monitor := one[*monitoring.PodMonitor](t, objects)
	if got.Labels["release"] != "prometheus" || monitor.Labels["release"] != "prometheus" {
		t.Error("the operator does not find them")
	}
	endpoint := monitor.Spec.PodMetricsEndpoints[0]
	if *endpoint.Port != "admin" || *endpoint.Scheme != "https" || *endpoint.TLSConfig.ServerName != "mail.example.org" {
		t.Errorf("scraped by %s on %s", *endpoint.Scheme, *endpoint.Port)
	}
	// The rules ask for this job.
	if r := endpoint.RelabelConfigs[0]; r.TargetLabel != "job" || *r.Replacement != "postern" {
		t.Errorf("the job is %+v", r)
	}
}

// Old clients need the RSA certificate.
func TestChartAsksForBothCertificates(t *testing.T) {
	objects, _ := template(t, charts["everything"].values)
	var names []string
	for _, c := range all[*certmanager.Certificate](objects) {
		names = append(names, fmt.Sprint(c.Spec.SecretName, " ", c.Spec.PrivateKey.Algorithm))
		if c.Spec.IssuerRef.Name != "letsencrypt" || c.Spec.IssuerRef.Kind != "ClusterIssuer" || !slices.Equal(c.Spec.DNSNames, []string{"mail.example.org"}) {
			t.Errorf("%+v", c.Spec)
		}
	}
	if want := []string{"gate-ecdsa ECDSA", "gate-rsa RSA"}; !slices.Equal(names, want) {
		t.Errorf("asks for %v", names)
	}
	var mounted []string
	for _, v := range one[*apps.Deployment](t, objects).Spec.Template.Spec.Volumes {
		if v.Name == "tls" {
			for _, s := range v.Projected.Sources {
				mounted = append(mounted, s.Secret.Name)
			}
		}
	}
	if want := []string{"mail-ecdsa", "mail-rsa", "gate-ecdsa", "gate-rsa"}; !slices.Equal(mounted, want) {
		t.Errorf("mounts %v", mounted)
	}
}

// Prometheus counts connections by listener; a Pods metric is their sum.
func TestChartScalesByOpenConnections(t *testing.T) {
	objects, _ := template(t, charts["everything"].values)
	hpa := one[*autoscaling.HorizontalPodAutoscaler](t, objects).Spec
	m := hpa.Metrics[0]
	if m.Type != autoscaling.PodsMetricSourceType || m.Pods.Metric.Name != "postern_connections_open" || m.Pods.Target.AverageValue.Value() != 10000 {
		t.Errorf("scales by %+v", m)
	}
	if *hpa.MinReplicas != 2 || hpa.MaxReplicas != 10 || *hpa.Behavior.ScaleDown.StabilizationWindowSeconds < 600 {
		t.Errorf("%+v", hpa)
	}
}
