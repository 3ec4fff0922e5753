package admin

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatATokenFileMayHold(t *testing.T) {
	const longest = 4096
	const sixteen = "hunter2-hunter2-"
	for _, tt := range []struct{ text, token, problem string }{
		{sixteen, sixteen, ""},
		{sixteen + "\n", sixteen, ""},
		{sixteen + "\r\n", sixteen, ""},
		{`!"#$%&'()*+,-./~` + "\n", `!"#$%&'()*+,-./~`, ""},
		{strings.Repeat("x", longest) + "\r\n", strings.Repeat("x", longest), ""},

		{"", "", "the token has 0 bytes, 16 are the least: openssl rand -base64 32 makes one"},
		{"\n", "", "the token has 0 bytes, 16 are the least: openssl rand -base64 32 makes one"},
		{sixteen[1:] + "\n", "", "the token has 15 bytes, 16 are the least: openssl rand -base64 32 makes one"},
		{sixteen[1:] + "\r\n", "", "the token has 15 bytes, 16 are the least: openssl rand -base64 32 makes one"},
		{strings.Repeat("x", longest+1), "", "the token has more than 4096 bytes, the most: openssl rand -base64 32 makes one"},
		{strings.Repeat("x", longest+1) + "\r\n", "", "the token has more than 4096 bytes, the most: openssl rand -base64 32 makes one"},
		{strings.Repeat("x", 1<<20), "", "the token has more than 4096 bytes, the most: openssl rand -base64 32 makes one"},
	} {
		checkTokenFile(t, tt.text, tt.token, tt.problem)
	}
	for _, text := range []string{
		sixteen + "\n\n", sixteen + "\r", sixteen + "\r\r\n", "\n" + sixteen, sixteen + "\n" + sixteen, " " + sixteen, sixteen + " \n",
		"hunter2 hunter2 hunter2", sixteen + "\t", sixteen + "\x00", sixteen + "\x7f", sixteen + "ü", "\ufeff" + sixteen,
	} {
		checkTokenFile(t, text, "", "the token is not one line of printable ASCII without blanks")
	}
}

func checkTokenFile(t *testing.T, text, want, problem string) {
	t.Helper()
	name := tokenFile(t, text)
	token, err := ReadToken(name)
	if problem == "" {
		if err != nil || !token.is(want) || token.is(want+"\n") || token.is("") {
			t.Errorf("%.40q: %v", text, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v", token, *token, token); strings.Contains(shown, want) {
			t.Errorf("%.40q: the token prints as %s", text, shown)
		}
		return
	}
	if line := "POSTERN_ADMIN_TOKEN_FILE: " + name + ": " + problem; err == nil || token != nil || err.Error() != line {
		t.Errorf("%.40q: got %v\nwant %s", text, err, line)
	}
}

func TestATokenFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for name, problem := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory: create it, or mend the name", dir: "is a directory: name a file in it",
	} {
		_, err := ReadToken(name)
		if want := "POSTERN_ADMIN_TOKEN_FILE: " + name + ": " + problem; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
