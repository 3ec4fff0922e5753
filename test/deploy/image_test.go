package deploy

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/posterntest"
)

// run runs the binary and returns its exit code and what it wrote.
func run(t *testing.T, vars map[string]string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(posterntest.Binary(t), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, config.Prefix) })
	for name, value := range vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// instructions are the lines of the Dockerfile's last stage, by first word.
func instructions(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	for line := range strings.Lines(read(t, "Dockerfile")) {
		word, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			clear(found)
		}
		if ok && word != "#" {
			found[word] = append(found[word], rest)
		}
	}
	return found
}

func TestImageRunsAsNobodyWithRootsAndVersion(t *testing.T) {
	got := instructions(t)
	for word, want := range map[string]string{
		"FROM": "scratch", "USER": "65532:65532", "ENTRYPOINT": `["/postern"]`, "CMD": `["serve"]`,
	} {
		if !slices.Equal(got[word], []string{want}) {
			t.Errorf("%s is %q, want %q", word, got[word], want)
		}
	}
	if !slices.Contains(got["COPY"], "--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt") {
		t.Error("the image has no CAs")
	}
	if len(got["LABEL"]) != 1 || !strings.Contains(got["LABEL"][0], `.version="${VERSION}"`) {
		t.Errorf("the label is %q", got["LABEL"])
	}
}

// TestReportsHaveAPlaceToSortIn: the image has nothing but what is copied to it.
func TestReportsHaveAPlaceToSortIn(t *testing.T) {
	for file, want := range map[string]string{
		"Dockerfile": "install -d -m 1777 /out/root/tmp", "deploy/compose.yaml": "read_only: true\n    tmpfs: [/tmp] ",
		"deploy/kubernetes/sidecar.yaml":                "{name: sorting, mountPath: /tmp}",
		"deploy/helm/postern/templates/deployment.yaml": "{name: sorting, mountPath: /tmp}",
	} {
		if !strings.Contains(read(t, file), want) {
			t.Errorf("%s has no /tmp: %s", file, want)
		}
	}
	if !slices.Contains(instructions(t)["COPY"], "--from=build --chown=65532:65532 /out/root/ /") {
		t.Error("the image has no /tmp")
	}
}

// What the image and the compose file ask is asked here, of a proxy that is up
// and of one that is not.
func TestHealthcheckOfImageAndCompose(t *testing.T) {
	_, list, ok := strings.Cut(strings.Join(instructions(t)["HEALTHCHECK"], ""), " CMD ")
	var command []string
	if err := json.Unmarshal([]byte(list), &command); err != nil || !ok {
		t.Fatalf("HEALTHCHECK runs %q: %v", list, err)
	}
	if test := composed(t).Services["postern"].Healthcheck.Test; !slices.Equal(test, append([]string{"CMD"}, command...)) {
		t.Errorf("the compose file asks by %q, the image by %q", test, command)
	}
	if len(command) != 2 || command[0] != "/postern" {
		t.Fatalf("the image runs %q", command)
	}
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	proxy := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": up.URL("imap")})
	where := map[string]string{config.Prefix + "ADMIN_LISTEN": proxy.Admin()}
	if code, out := run(t, where, command[1:]...); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
	proxy.Stop(t)
	if code, out := run(t, where, command[1:]...); code != 1 || out == "" {
		t.Errorf("of an instance that is gone: exit code %d: %q", code, out)
	}
}
