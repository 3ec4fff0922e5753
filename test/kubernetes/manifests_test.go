package kubernetes

import (
	"slices"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// A native sidecar starts before the main containers and ends after them: that has to
// be the mail server. Postern then needs no hook to outlive it.
func TestSidecar(t *testing.T) {
	objects := manifest(t, "sidecar.yaml")
	pod := one[*apps.Deployment](t, objects).Spec.Template
	checkRestricted(t, &pod.ObjectMeta, &pod.Spec)
	checkEnvironment(t, &pod.Spec, objects)
	checkGrace(t, &pod.Spec, 30*time.Second)
	checkListeners(t, objects, []string{"imap", "imaps", "pop3", "pop3s"})
	checkProbes(t, pod.Spec.Containers[0])
	for name, value := range one[*core.Service](t, objects).Spec.Selector {
		if pod.Labels[name] != value {
			t.Errorf("the Service selects %s=%s", name, value)
		}
	}
	if len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Containers) != 1 {
		t.Fatalf("%d and %d containers", len(pod.Spec.InitContainers), len(pod.Spec.Containers))
	}
	server, postern := pod.Spec.InitContainers[0], pod.Spec.Containers[0]
	if always := core.ContainerRestartPolicyAlways; server.RestartPolicy == nil || *server.RestartPolicy != always || server.Name != "dovecot" || postern.Name != "postern" {
		t.Error("Dovecot is not the native sidecar of Postern")
	}
	if server.Lifecycle != nil || postern.Lifecycle != nil {
		t.Error("a hook takes part in the order")
	}
	claims := all[*core.PersistentVolumeClaim](objects)
	if len(claims) != 1 || !slices.ContainsFunc(pod.Spec.Volumes, func(v core.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claims[0].Name
	}) {
		t.Error("the mail store is not mounted")
	}
}

func TestGatewayPassesTLSThrough(t *testing.T) {
	objects := manifest(t, "gateway.yaml")
	g := one[*gateway.Gateway](t, objects)
	// By listener, the port that its route leads to.
	led := map[gateway.SectionName]gateway.PortNumber{}
	follow := func(refs []gateway.ParentReference, backends []gateway.BackendRef) {
		if len(refs) != 1 || string(refs[0].Name) != g.Name || len(backends) != 1 || backends[0].Name != "postern" {
			t.Fatalf("from %+v to %+v", refs, backends)
		}
		led[*refs[0].SectionName] = *backends[0].Port
	}
	for _, r := range all[*gateway.TLSRoute](objects) {
		follow(r.Spec.ParentRefs, r.Spec.Rules[0].BackendRefs)
		if len(r.Spec.Hostnames) == 0 { // the CRD demands some
			t.Errorf("%s names no host", r.Name)
		}
	}
	for _, r := range all[*gateway.TCPRoute](objects) {
		follow(r.Spec.ParentRefs, r.Spec.Rules[0].BackendRefs)
	}
	for _, l := range g.Spec.Listeners {
		name, implicit := string(l.Name), l.Protocol == gateway.TLSProtocolType
		if int32(l.Port) != wellKnown[name] || led[l.Name] != l.Port {
			t.Errorf("%s: %d leads to %d", name, l.Port, led[l.Name])
		}
		if implicit != (name == "imaps" || name == "pop3s") || implicit && *l.TLS.Mode != gateway.TLSModePassthrough {
			t.Errorf("%s: %s, %+v", name, l.Protocol, l.TLS)
		}
	}
	if len(led) != 4 || len(g.Spec.Listeners) != 4 {
		t.Errorf("%d listeners, %d routes", len(g.Spec.Listeners), len(led))
	}
}
