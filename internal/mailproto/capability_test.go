package mailproto

import "testing"

func TestCapabilitiesThatDoNotHoldInsideTLSDisappearFromAllFourPlaces(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"greeting", "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED ID] ready\r\n", "* OK [CAPABILITY IMAP4rev1 ID] ready\r\n"},
		{"response", "* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\r\n", "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n"},
		{"tagged", "a1 OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256-PLUS IDLE] in\r\n", "a1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"},
		{"untagged during login", "* NO [CAPABILITY STARTTLS IMAP4rev1] no\r\n", "* NO [CAPABILITY IMAP4rev1] no\r\n"},
		{"BAD", "x BAD [CAPABILITY IMAP4rev1 STARTTLS] no\r\n", "x BAD [CAPABILITY IMAP4rev1] no\r\n"},
		{"PREAUTH", "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] no\r\n", "* PREAUTH [CAPABILITY IMAP4rev1] no\r\n"},
		{"BYE", "* BYE [CAPABILITY IMAP4rev1 LOGINDISABLED] no\r\n", "* BYE [CAPABILITY IMAP4rev1] no\r\n"},
		{"mixed case", "* ok [Capability imap4rev1 StartTLS LoginDisabled auth=x-pLuS z] r\r\n", "* ok [Capability imap4rev1 z] r\r\n"},
		{"first", "* CAPABILITY STARTTLS IMAP4rev1\r\n", "* CAPABILITY IMAP4rev1\r\n"},
		{"only", "* CAPABILITY STARTTLS\r\n", "* CAPABILITY\r\n"},
		{"double spaces stay with their token", "* CAPABILITY IMAP4rev1  STARTTLS  ID \r\n", "* CAPABILITY IMAP4rev1  ID \r\n"},
		{"LF alone", "* CAPABILITY IMAP4rev1 STARTTLS\n", "* CAPABILITY IMAP4rev1\n"},
		{"twice", "* CAPABILITY STARTTLS IMAP4rev1 STARTTLS\r\n", "* CAPABILITY IMAP4rev1\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(FilterIMAPCapabilities([]byte(tt.in))); got != tt.want {
				t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestOtherIMAPLinesStayAsTheyAre(t *testing.T) {
	for _, line := range []string{
		"* CAPABILITY IMAP4rev1 XSTARTTLS STARTTLSX AUTH=PLUS AUTH=PLAIN PLUS-PLUS LOGINDISABLEDX\r\n",
		"* OK say STARTTLS first\r\n", "* OK hello [CAPABILITY STARTTLS]\r\n", "* OK [ALERT] STARTTLS LOGINDISABLED\r\n",
		"* OK [CAPABILITY IMAP4rev1] STARTTLS AUTH=X-PLUS\r\n", "* OK [CAPABILITYX STARTTLS] x\r\n", "* OK [CAPABILITY]\r\n",
		"* CAPABILITY {8}\r\nSTARTTLS STARTTLS\r\n", "* OK [CAPABILITY {3}\r\nabc STARTTLS] x\r\n",
		"* ID (\"name\" \"STARTTLS\")\r\n", "* 1 FETCH (BODY[] \"CAPABILITY STARTTLS\")\r\n", "* LIST () \"/\" STARTTLS\r\n",
		"+ CAPABILITY STARTTLS\r\n", "+ U1RBUlRUTFM=\r\n", "a CAPABILITY STARTTLS\r\n", "a OK STARTTLS\r\n",
		"*CAPABILITY STARTTLS\r\n", " CAPABILITY STARTTLS\r\n", "\r\n", "\n", "", "*", "* ", "STARTTLS\r\n",
	} {
		if got := string(FilterIMAPCapabilities([]byte(line))); got != line {
			t.Errorf("%q became %q", line, got)
		}
	}
}

func TestCapabilitiesThatDoNotHoldInsideTLSDisappearFromCAPA(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"STLS\r\n", ""},
		{"stls\n", ""},
		{"SASL PLAIN SCRAM-SHA-1-PLUS LOGIN\r\n", "SASL PLAIN LOGIN\r\n"},
		{"sasl scram-sha-1-plus PLAIN\r\n", "sasl PLAIN\r\n"},
		{"SASL SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS\r\n", ""},
		{"SCRAM-SHA-256-PLUS\r\n", ""}, // a line of what AUTH lists
		{"SCRAM-SHA-256\r\n", "SCRAM-SHA-256\r\n"},
		{"PLAIN\r\n", "PLAIN\r\n"},
		{"SASL \r\n", "SASL \r\n"},
		{"SASL\r\n", "SASL\r\n"},
		{"SASLX SCRAM-SHA-1-PLUS\r\n", "SASLX SCRAM-SHA-1-PLUS\r\n"},
		{"IMPLEMENTATION STLS-PLUS\r\n", "IMPLEMENTATION STLS-PLUS\r\n"},
		{"XSTLS\r\n", "XSTLS\r\n"}, {"USER\r\n", "USER\r\n"}, {".\r\n", ".\r\n"}, {"\r\n", "\r\n"},
		{"PLUS\r\n", "PLUS\r\n"},
	} {
		if got := string(FilterPOP3Capability([]byte(tt.in))); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}
