package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// binary is the postern under test: $POSTERN_BIN where that is set.
var binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("POSTERN_BIN"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "postern")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-o", bin, "./cmd/postern")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Helm says of every link that it follows it
	code := m.Run()
	if bin, err := binary(); err == nil && os.Getenv("POSTERN_BIN") == "" {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// checkRestricted asks Pod Security's own evaluator.
func checkRestricted(t *testing.T, labels *meta.ObjectMeta, spec *core.PodSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(restricted, labels, spec) {
		if !r.Allowed {
			t.Errorf("Pod Security: %s: %s", r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
	// What it does not look at.
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks || spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the pod is given more than it needs")
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root file system can be written", c.Name)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: resources %v", c.Name, c.Resources)
		}
		for _, p := range c.Ports {
			if p.ContainerPort < 1024 {
				t.Errorf("%s: port %s is %d, for which it has no capability", c.Name, p.Name, p.ContainerPort)
			}
		}
	}
}

// mounted lays out the files of a pod below a directory. Those of Secrets and
// ConfigMaps that are not among the objects hold what stands for any of them.
func mounted(t *testing.T, spec *core.PodSpec, c core.Container, objects []runtime.Object) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(mount core.VolumeMount, file, key, content string) {
		if content == "" {
			content = sample(t, file, key)
		}
		name := filepath.Join(dir, mount.MountPath, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	items := func(mount core.VolumeMount, list []core.KeyToPath, data map[string]string) {
		for _, item := range list {
			write(mount, item.Path, item.Key, data[item.Key])
		}
	}
	for _, mount := range c.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v core.Volume) bool { return v.Name == mount.Name })
		if i < 0 {
			t.Fatalf("there is no volume %s", mount.Name)
		}
		if mount.SubPath != "" {
			t.Errorf("%s is mounted by itself, and never swapped", mount.MountPath)
		}
		v := spec.Volumes[i]
		switch {
		case v.EmptyDir != nil:
			continue
		case !mount.ReadOnly:
			t.Errorf("%s can be written", mount.MountPath)
		}
		if v.ConfigMap != nil {
			if len(all[*core.ConfigMap](objects)) == 0 {
				write(mount, "policy.yaml", "", "mode: observe\n")
			}
			for _, m := range all[*core.ConfigMap](objects) {
				for file, content := range m.Data {
					if m.Name == v.ConfigMap.Name {
						write(mount, file, file, content)
					}
				}
			}
			continue
		}
		if v.Projected == nil || spec.SecurityContext.FSGroup == nil || *v.Projected.DefaultMode != 0o440 {
			t.Fatalf("volume %s cannot be read: %+v", mount.Name, v)
		}
		for _, source := range v.Projected.Sources {
			if s := source.Secret; s != nil {
				items(mount, s.Items, nil)
			} else {
				items(mount, source.ConfigMap.Items, nil)
			}
		}
	}
	return dir
}

// certificate is one with its key, in PEM.
var certificate = sync.OnceValues(func() (cert, key string) {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.org"}, DNSNames: []string{"mail.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, _ := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(k)
	block := func(name string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
})

// sample is content of the kind that a file of that name holds.
func sample(t *testing.T, file, key string) string {
	t.Helper()
	cert, private := certificate()
	switch {
	case key == "tls.key":
		return private
	case key == "tls.crt" || strings.Contains(file, "CA_FILE"):
		return cert
	}
	return "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n" // 32 bytes in base64
}

// database stands for the URL in a Secret.
const database = "postgres://postern@db.mail.svc/postern"

// environment is what postern is started with, its files below dir.
func environment(t *testing.T, c core.Container, dir string) []string {
	t.Helper()
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for _, v := range c.Env {
		if v.ValueFrom != nil {
			if v.ValueFrom.SecretKeyRef == nil || v.Name != "POSTERN_LEDGER_URL" {
				t.Fatalf("%s comes from %+v", v.Name, v.ValueFrom)
			}
			v.Value = database
		}
		switch {
		case strings.HasPrefix(v.Value, "/"):
			v.Value = dir + v.Value
		case strings.HasPrefix(v.Value, ":"): // free in a pod, but perhaps not here
			v.Value = ":0"
		}
		environ = append(environ, v.Name+"="+v.Value)
	}
	return environ
}

// checkEnvironment has postern itself read the container's environment.
func checkEnvironment(t *testing.T, spec *core.PodSpec, objects []runtime.Object) {
	t.Helper()
	c := spec.Containers[0]
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command(bin, "check", "-offline")
	check.Env = environment(t, c, mounted(t, spec, c, objects))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("postern check -offline: %v\n%s", err, out)
	}
}

// value is a variable of a container.
func value(c core.Container, name string) string {
	i := slices.IndexFunc(c.Env, func(v core.EnvVar) bool { return v.Name == name })
	if i < 0 {
		return ""
	}
	return c.Env[i].Value
}

// checkGrace fails where sessions would be cut before TIMEOUT_DRAIN, or soon after it:
// the log's last lines and the exit follow it.
func checkGrace(t *testing.T, spec *core.PodSpec, drain time.Duration) {
	t.Helper()
	grace := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
	if l := spec.Containers[0].Lifecycle; l != nil {
		grace -= time.Duration(l.PreStop.Sleep.Seconds) * time.Second
	}
	if grace < drain+2*time.Second || grace > drain+20*time.Second {
		t.Errorf("a drain of %v has %v", drain, grace)
	}
}
