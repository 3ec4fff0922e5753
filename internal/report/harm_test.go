package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// forged are what strangers may call themselves.
var forged = []string{
	`<script>alert("x")</script>`, "<img src=x onerror=alert(1)>", "&lt;b&gt;", "anna\r\nGO: nobody is left.\r\n", "a\n\n# heading\n",
	"\x1b[2J\x1b]0;pwned\x07\x9b31m", "| a | b |\n|---|---|", "`code` ``` ~~~", "[click](http://example.com) ![](http://example.com/x.png)",
	"@everyone <!-- comment -->", `=HYPERLINK("http://example.com","x")`, "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", `a"b,c;d`,
	strings.Repeat("A", 64<<10), strings.Repeat("é|`<", 16<<10), "\u202egnp.exe\u2066", "\xff\xfe\x00", "\u2028line", `back\slash\|`, "", " ",
}

func forgedFacts(t *testing.T) facts {
	f := sampleFacts(t)
	f.Clients = nil
	for i, text := range forged {
		c := came("192.0.2.7", "imaps", policy.TLS10, oldJA4, i, as(text, "program"), as("anna@example.org", text), as(text+"@"+text, text))
		c.Endpoint.Name = text
		noise := c
		noise.Noise = true
		exempted := came("10.20.0.5", proxy.Listener(text), policy.TLS10, text, i, as(text, text))
		f.Clients = append(f.Clients, c, noise, exempted)
	}
	for i := range f.Policy.Rules() {
		f.Policy.Rules()[i].Owner = forged[i] + "| <b> `x`"
	}
	f.PolicyFile = "/etc/\x1b[2J<script>|`.yaml\n"
	return f
}

// checkHarmless fails the test where text holds what a terminal obeys.
func checkHarmless(t *testing.T, name, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) {
			t.Errorf("%s: holds %q", name, r)
		}
	}
	if !utf8.ValidString(text) || len(text) > 1<<20 {
		t.Errorf("%s: %d bytes, valid %v", name, len(text), utf8.ValidString(text))
	}
}

func TestForgedTextDoesNoHarm(t *testing.T) {
	for _, by := range []By{ByAccount, ByDomain, ByNetwork, BySoftware} {
		r := build(t, forgedFacts(t), Options{Since: fortnight, By: by, Noise: true})
		written := make(map[Format]string)
		for _, f := range []Format{Text, Markdown, CSV, JSON} {
			var b bytes.Buffer
			if err := r.Write(&b, Style{Format: f, Top: DefaultTop}); err != nil {
				t.Fatal(err)
			}
			written[f] = b.String()
			checkHarmless(t, string(by)+" "+string(f), strings.ReplaceAll(b.String(), "\r\n", "\n"))
		}
		for line := range strings.Lines(written[Text]) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > text.Width && !strings.HasPrefix(line, "Policy ") {
				t.Errorf("by %s: %d columns: %s", by, n, line)
			}
			if strings.HasPrefix(line, "GO") {
				t.Errorf("by %s: a forged line: %s", by, line)
			}
		}
		checkMarkdown(t, written[Markdown])
		checkCSV(t, written[CSV])
		if strings.ContainsAny(written[JSON], "<>&") || json.Unmarshal([]byte(written[JSON]), new(Report)) != nil {
			t.Errorf("by %s: JSON that is none, or could be HTML", by)
		}
	}
}

// outsideCode is what is left of a line without its code spans.
var codeSpan = regexp.MustCompile("`[^`]+`")

func checkMarkdown(t *testing.T, text string) {
	t.Helper()
	columns := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsAny(line, "<>") {
			t.Errorf("HTML: %.80s", line)
		}
		if strings.HasPrefix(line, "|") {
			if n := strings.Count(line, "|"); columns == 0 {
				columns = n
			} else if n != columns {
				t.Errorf("%d bars, not %d: %.80s", n, columns, line)
			}
		} else {
			columns = 0
		}
		if rest := codeSpan.ReplaceAllString(line, ""); strings.ContainsAny(rest, "`[]*_<>@!\\") {
			t.Errorf("Markdown outside of a code span: %.80s", rest)
		}
	}
}

func checkCSV(t *testing.T, text string) {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll() // as many fields in each line
	if err != nil || len(rows) < 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
				t.Errorf("a formula: %.80q", cell)
			}
		}
	}
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Error("a line of RFC 4180 ends in CRLF")
	}
}

func TestAReplayOfForgedTextDoesNoHarm(t *testing.T) {
	f := forgedFacts(t)
	trial := Trial{Policy: f.Policy, PolicyFile: f.PolicyFile, At: sampleNow, Since: sampleNow.Add(-fortnight), Noise: true, Source: SourceOf(f.Clients)}
	for _, format := range []Format{Text, CSV, JSON} {
		var b bytes.Buffer
		if err := Judge(t.Context(), &b, trial, format); err != nil {
			t.Fatal(err)
		}
		checkHarmless(t, "replay", strings.ReplaceAll(b.String(), "\r\n", "\n"))
	}
}

func TestLongTextIsCut(t *testing.T) {
	for _, s := range []string{strings.Repeat("a", 64<<10), strings.Repeat("é", 1000), strings.Repeat("a ", 300)} {
		if got := oneLine(s); utf8.RuneCountInString(got) != maxText || !strings.HasSuffix(got, "...") {
			t.Errorf("%d characters are left, that end in %q", utf8.RuneCountInString(got), got[len(got)-5:])
		}
	}
}
