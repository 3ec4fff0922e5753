package main

// frontMutants break the dialogue before TLS.
func frontMutants() []mutant {
	return append(injectionMutants(), plaintextLoginMutants()...)
}

// injectionMutants take what is sent before TLS, or in place of it, for what
// it is not.
func injectionMutants() []mutant {
	const file = "proxy/front.go"
	noHandshake := handshakes("^TestNoHandshakeBegins$/^(imap a1 STARTTLS|pop3 STLS)")
	return []mutant{
		{
			name: "a command pipelined behind STARTTLS is executed",
			file: file,
			old:  "\t\t\t\treturn errInjection\n",
			new:  "\t\t\t\tf.say(begin)\n\t\t\t\tcontinue\n",
			seen: noHandshake,
		},
		{
			name: "an injection is counted as a failed handshake too",
			file: file,
			old:  "\t\ts.srv.cfg.Meter.Injection(s.Listener)\n",
			new:  "\t\ts.srv.cfg.Meter.Injection(s.Listener)\n\t\ts.tlsTooSoon()\n",
			seen: noHandshake,
		},
		{
			name: "an injection is not counted",
			file: file,
			old:  "\t\ts.srv.cfg.Meter.Injection(s.Listener)\n",
			new:  "",
			seen: noHandshake,
		},
		{
			name: "TLS on a STARTTLS port is taken for a command",
			file: file,
			old:  "c == recordHandshake || c == recordAlert",
			new:  "c == recordAlert",
			seen: handshakes("^TestTLSOnASTARTTLSPort$/^imap TLS 1.3$"),
		},
		{
			name: "TLS on a STARTTLS port is not counted",
			file: file,
			old:  "\t\ts.tlsTooSoon()\n",
			new:  "",
			seen: handshakes("^TestTLSOnASTARTTLSPort$/^imap TLS 1.3$"),
		},
		{
			name: "a malformed command is echoed",
			file: file,
			old:  `return nil, f.sayf("* BAD Malformed command.\r\n")`,
			new:  `return nil, f.sayf("* BAD Malformed command: %s", line)`,
			seen: relays("^TestAnInvalidTagIsNotEchoed$"),
		},
		{
			name: "the client is greeted again behind STARTTLS",
			file: "proxy/session.go",
			old:  "\tif s.Listener.ImplicitTLS() {\n\t\tif err := r.deliver",
			new:  "\tif s.Listener != \"\" {\n\t\tif err := r.deliver",
			seen: relays("^TestNothingFromBeforeSTARTTLSSurvivesIt$"),
		},
	}
}

// plaintextLoginMutants let a login before TLS through, or forget it.
func plaintextLoginMutants() []mutant {
	const (
		file    = "proxy/front.go"
		counted = "\t\tf.cleartextLogin()\n\t\tif err := f.skipLiterals(line, false); err != nil {"
	)
	return []mutant{
		{
			name: "a plaintext LOGIN is let through",
			file: file,
			old:  `return nil, f.sayf("%s NO [PRIVACYREQUIRED] Log in over TLS only: say STARTTLS first.\r\n", tag)`,
			new:  `return nil, f.sayf("%s OK Logged in.\r\n", tag)`,
			seen: relays("^TestIMAPLoginsBeforeTLSAreRefusedAndForgotten$"),
		},
		{
			name: "a plaintext LOGIN is not counted",
			file: file,
			old:  counted,
			new:  "\t\tif err := f.skipLiterals(line, false); err != nil {",
			seen: mail("^TestPlaintextLoginsAreRefusedAndForgotten$"),
		},
		{
			name: "a POP3 login before TLS is counted at USER and at PASS",
			file: file,
			old:  `if !equalFold(name, "PASS") && len(args) > 0 {`,
			new:  `if len(args) > 0 {`,
			seen: relays("^TestPOP3LoginsBeforeTLSAreRefusedAndForgotten$"),
		},
		{
			name: "a password before TLS reaches the log",
			file: file,
			old:  counted,
			new:  "\t\tf.s.srv.cfg.Log.Info(\"login before TLS\", \"line\", string(line))\n" + counted,
			seen: proxyUnit("^TestCredentialsNeverReachALog$"),
		},
		{
			name: "a literal of a plaintext LOGIN is read as commands",
			file: file,
			old:  "if !ok || lit.sync && !ask {",
			new:  "if !ok || !ask {",
			seen: relays("^TestIMAPLoginsBeforeTLSAreRefusedAndForgotten$"),
		},
	}
}
