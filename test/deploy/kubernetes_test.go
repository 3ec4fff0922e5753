package deploy

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"postern/internal/config"
)

// document decodes the document of that kind and name in the manifest of the
// sidecar. What Kubernetes makes of it, test/kubernetes checks.
func document(t *testing.T, kind, name string, into any) {
	t.Helper()
	i := slices.IndexFunc(documents(t, sidecar), func(doc *yaml.Node) bool {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		return doc.Decode(&head) == nil && head.Kind == kind && head.Metadata.Name == name
	})
	if i < 0 {
		t.Fatalf("no %s %s", kind, name)
	}
	if err := documents(t, sidecar)[i].Decode(into); err != nil {
		t.Fatalf("%s %s: %v", kind, name, err)
	}
}

// sidecarConfig is the configuration of the mail server in the pod.
func sidecarConfig(t *testing.T, file string) string {
	t.Helper()
	var c struct{ Data map[string]string }
	document(t, "ConfigMap", "mail-dovecot", &c)
	return c.Data[file]
}

// sidecarVariables are Postern's in the pod.
func sidecarVariables(t *testing.T) map[string]string {
	t.Helper()
	var d struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Env []struct{ Name, Value string }
					}
				}
			}
		}
	}
	document(t, "Deployment", "mail", &d)
	vars := make(map[string]string)
	for _, v := range d.Spec.Template.Spec.Containers[0].Env {
		if strings.HasPrefix(v.Name, config.Prefix) {
			vars[v.Name] = v.Value
		}
	}
	return vars
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
