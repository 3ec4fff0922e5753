package main

// namingMutants tell somebody else, what is not to be told, or nobody.
func namingMutants() []mutant { return append(accountMutants(), nameMutants()...) }

// accountMutants tell somebody else.
func accountMutants() []mutant {
	const file, along = "proxy/identity.go", "proxy/overhear.go"
	account := func(name string) check {
		return proxyUnit("^TestTheAccountOfALegacySessionIsTold$/^" + name + ",_pipelined_false$")
	}
	return []mutant{
		{
			name: "a login is told under the name of the one that failed before",
			file: file,
			old:  "\t*in = introduction{software: in.software, user: in.user}\n",
			new:  "\t*in = introduction{software: in.software, user: in.user, account: in.account}\n",
			seen: account("imaps_wrong_by_LOGIN,_then_by_what_is_not_known"),
		},
		{
			name: "an administrator is told in place of the account that he opens",
			file: file,
			old:  "\t\treturn authzid, ok\n",
			new:  "\t\treturn authcid, ok\n",
			seen: account("imaps_PLAIN_for_somebody_else"),
		},
		{
			name: "the password of SASL LOGIN is told as the account",
			file: file,
			old:  "{ return m, true }",
			new:  "{ return m, len(m) > 0 }",
			seen: account("imaps_SASL_LOGIN,_empty_at_first"),
		},
		{
			name: "the password of LOGIN is told as the account",
			file: file,
			old:  "\t\tin.wanted = 1\n",
			new:  "\t\tin.wanted = 2\n",
			seen: proxyUnit("^TestCredentialsNeverReachALog$|^TestAnAccountIsToldWithALoginAlone$"),
		},
		{
			name: "a part of a long account is told, which may be somebody else",
			file: file,
			old:  "\t\treturn \"\"\n\t}\n\treturn string(b)\n",
			new:  "\t\tb = b[:maxAccount]\n\t}\n\treturn string(b)\n",
			seen: account("imaps_one_longer"),
		},
		{
			name: "a POP3 session is told under a user that the upstream has refused",
			file: file,
			old:  "!a.ok && equalFold(name, \"USER\")",
			new:  "!a.ok && equalFold(name, \"PASS\")",
			seen: account("pop3s_a_user_that_is_refused"),
		},
	}
}

// nameMutants tell what is not to be told, or nobody.
func nameMutants() []mutant {
	const file, along = "proxy/identity.go", "proxy/overhear.go"
	account := func(name string) check {
		return proxyUnit("^TestTheAccountOfALegacySessionIsTold$/^" + name + ",_pipelined_false$")
	}
	behind := func(name string) check {
		return proxyUnit("^TestAnIDBehindTheLoginIsReadAlong$/^" + name + "$")
	}
	return []mutant{
		{
			name: "accounts of modern clients are told",
			file: file,
			old:  "return s.srv.cfg.Identity && s.Legacy",
			new:  "return s.srv.cfg.Identity",
			seen: proxyUnit("^TestNobodyElseIsNamed$"),
		},
		{
			name: "accounts are told with identity off",
			file: file,
			old:  "return s.srv.cfg.Identity && s.Legacy",
			new:  "return s.Legacy",
			seen: proxyUnit("^TestAnAccountIsToldWithALoginAlone$"),
		},
		{
			name: "a message that is being stored is read for commands",
			file: along,
			old:  "\to.inside, o.octets = literal, lit.size\n",
			new:  "\to.inside, o.octets = literal, 0\n",
			seen: behind("behind_a_message"),
		},
		{
			name: "a message that was refused is taken for stored",
			file: along,
			old:  " || lit.sync && o.message) {",
			new:  ") {",
			seen: behind("behind_a_message_that_is_refused"),
		},
		{
			name: "commands are read along without end",
			file: along,
			old:  "\tp = p[:min(len(p), o.left)]\n\to.left -= len(p)\n",
			new:  "\to.left = max(1, o.left-len(p))\n",
			seen: behind("one_byte_too_late"),
		},
		{
			name: "software is told once for each ID",
			file: along,
			old:  "\treturn literal || !o.told()\n",
			new:  "\treturn o.told() || true\n",
			seen: behind("only_the_first"),
		},
		{
			name: "what a client says while the gate reads along is lost",
			file: along,
			old:  "\tn, err := o.to.Write(p)\n",
			new:  "\tn, err := o.to.Write(p[:len(p)-min(1, o.left)])\n",
			seen: proxyUnit("^TestAnIDBehindTheLoginIsReadAlong$|^TestSoftwareIsToldBehindTheLogin$"),
		},
		{
			name: "a login that the client has cancelled counts as a failure",
			file: "proxy/imap.go",
			old:  "if !a.ok && !f.cancelled {",
			new:  "if !a.ok {",
			seen: account("imaps_cancelled"),
		},
		{
			name: "a login that the upstream refuses does not count",
			file: "proxy/imap.go",
			old:  "\t\tf.r.s.failedLogins++\n",
			new:  "\t\tf.r.s.failedLogins += 0\n",
			seen: account("imaps_wrong,_then_as_somebody_else"),
		},
	}
}
