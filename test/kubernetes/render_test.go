package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	root      = "../.."
	chartDir  = root + "/deploy/helm/postern"
	namespace = "mail"
)

// decoder takes no field that a type does not have, and none twice.
var decoder = func() runtime.Decoder {
	for _, add := range []func(*runtime.Scheme) error{certmanager.AddToScheme, monitoring.AddToScheme, gateway.Install} {
		if err := add(scheme.Scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decode returns the objects in some YAML documents.
func decode(t *testing.T, name, text string) []runtime.Object {
	t.Helper()
	var objects []runtime.Object
	for r := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text))); ; {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		object, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, doc)
		}
		objects = append(objects, object)
	}
}

// least is what the chart cannot do without.
const least = `
image: {repository: registry.example.org/postern}
tls: {secretNames: [mail-ecdsa, mail-rsa]}
config: {UPSTREAM_IMAP: "imap+starttls://dovecot.mail.svc"}
`

// parse reads values in YAML, those that are not given from least.
func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	for _, text := range []string{least, text} {
		more, err := loader.LoadValues(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		maps.Copy(values, more)
	}
	return values
}

// render does what helm template does.
func render(values map[string]any) (map[string]string, error) {
	chart, err := loader.LoadDir(chartDir)
	if err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: "mail", Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := util.ToRenderValues(chart, values, release, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

// template returns the chart's objects and its notes, with values beside the least.
func template(t *testing.T, values string) (objects []runtime.Object, notes string) {
	t.Helper()
	files, err := render(parse(t, values))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch path.Ext(name) {
		case ".yaml":
			objects = append(objects, decode(t, name, files[name])...)
		case ".txt":
			notes = files[name]
		}
	}
	return objects, notes
}

// all returns the objects of one type.
func all[T runtime.Object](objects []runtime.Object) (found []T) {
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one returns the only object of a type.
func one[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	found := all[T](objects)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T", len(found), *new(T))
	}
	return found[0]
}

func manifest(t *testing.T, name string) []runtime.Object {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/kubernetes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, name, string(text))
}

func unmarshal(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := sigsyaml.UnmarshalStrict(text, into); err != nil {
		t.Fatal(err)
	}
}
