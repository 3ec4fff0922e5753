package main

// mutants are the breaches, by the promise that they break.
var mutants = []mutant{
	// What is legacy, and which alert says so.
	{"a client that falls back is let in", "policy Snapshot.Decide", part("Fallback", 1), never, "policy TestClientsServedBelowTheFloor"},
	{"a fallback is a version like any other", "policy Floor.judge", condition("Fallback", 1), never, "policy TestVerdictsByHelloAndFloor"},
	{"a version below the floor is not legacy", "policy Floor.judge", condition("version", 2), never, "policy TestVerdictsByHelloAndFloor"},
	{"a suite that is not acceptable is not legacy", "policy Floor.judge", condition("key", 1), never, "policy TestVerdictsByHelloAndFloor"},
	{"RSA key exchange is never offered alone", "policy Floor.pickKey", condition("staticRSA", 1), never, "policy TestRSAKeyExchangeAloneIsForThoseWhoShareNoSignature"},
	{"RSA key exchange reaches the default floor", "policy floors", word("cbc", 1), becomes("(cbc | rsaAES)"), "policy TestFloorsSpellOutTheirSuites"},
	{"a hello with TLS 1.2 is rejected early", "internal/legacyhello SoleOld", part("TLS12", 1), always, "internal/legacyhello TestASoleOldHello"},
	{"a hello that crypto/tls cannot read is nobody's", "proxy clientConn.writeAlert", condition("Unreadable", 1), never, "proxy TestAHelloThatCryptoTLSCannotReadIsNotInvisible"},

	// Policies: first match, shares, exemptions, dates.
	{"a rule has no mode", "policy Snapshot.Decide", assignment("Mode", 1), skipped, "policy TestTheFirstRuleThatMatchesDecides"},
	{"no rule decides", "policy Policy.outcomes", condition("i", 1), never, "policy TestTheFirstRuleThatMatchesDecides"},
	{"a rule with a share takes all", "policy Snapshot.outcome", condition("Share", 1), always, "policy TestTheExamplePolicyThroughItsLife"},
	{"a rule takes everybody", "policy Policy.matching", call("drop", 2), skipped, "policy TestAllKeysOfARuleMustHoldAnyValueOfAKey"},
	{"a snapshot never ends", "policy Snapshot.Valid", body, first("return true"), "policy TestASnapshotIsNotValidOutsideItsTime"},
	{"a rule has no last moment", "policy Rule.within", part("ended", 1), always, "policy TestARuleIsInForceFromItsFirstToBeforeItsLastMoment"},
	{"an exemption needs no end", "policy Rule.Exemption", part("Until", 1), always, "metrics TestExemptionsSayWhenTheyEnd"},
	{"a share takes nobody", "policy Share.takes", body, first("return false"), "policy TestAShareOfTheClientsIsWhatItSays"},
	{"a share goes by connection", "policy Share.position", condition("Connection", 1), never, "policy TestTheExamplePolicyThroughItsLife"},
	{"rules take the same clients", "policy shuffleOf", body, first("return [2]uint64{1, 2}"), "policy TestRulesShuffleEachAnew"},
	{"an IPv6 address is a client", "policy ClientPrefix", argument(1, "Prefix", 1), becomes("client.BitLen()"), "proxy TestConnectionsAreCountedPerClient"},
	{"a candidate judges nothing", "policy Snapshot.Decide", assignment("judged", 1), skipped, "policy TestCandidatesAreJudgedBesideTheFloor"},
	{"a brownout is open all day", "policy Rule.InForce", part("Schedule", 1), always, "policy TestTheExamplePolicyThroughItsLife"},

	{"a guard that has tripped takes no rule back", "policy Policy.Guarded", assignment("rules", 2), skipped, "policy TestATrippedGuardChangesWhatClientsMeet"},
	{"a guard does not trip", "internal/ledger Recorder.Guards", part("Seen", 1), never, "internal/ledger TestAGateThatIsKilledInTheMiddle/sqlite"},
	{"a grace does not end", "internal/ledger Recorder.Graced", part("Before", 1), always, "internal/ledger TestAGraceBeginsWithTheFirstRefusal/sqlite"},
	{"a stranger has a grace", "internal/ledger Recorder.Graced", part("known", 1), always, "internal/ledger TestAGraceBeginsWithTheFirstRefusal/sqlite"},
	{"what is written counts after a release", "internal/ledger Store.Release", call("run", 2), skipped, "internal/ledger TestWhatIsReleasedStaysSoForAnyClock"},
	{"a form lets a guard go", "internal/admin GuardHandler", condition("Get", 1), never, "internal/admin TestAGuardIsReleasedByThoseWithAccess"},

	// Invariant: crypto/tls enforces.
	{"a lenient configuration exists under enforce", "proxy Server.rebuild", condition("legacy", 1), always, "proxy TestNoLenientConfigExistsUnderEnforce"},
	{"everybody is answered by the lenient configuration", "proxy tlsSnapshot.config", condition("Enforce", 1), always, "test/policy TestTheFirstRuleThatMatchesDecides"},
	{"another policy is not for the next hello", "proxy Server.SetPolicy", assignment("policy", 1), skipped, "proxy TestAnotherPolicyIsForTheNextHello"},
	{"a rule comes into force when it likes", "proxy Server.tlsSnapshot", condition("Valid", 1), always, "proxy TestRulesComeAndGoByTheClock"},
	{"a client that is let in is rejected early", "proxy session.rejectEarly", part("Mode", 1), never, "proxy TestNoEarlyRejectForAClientThatIsLetIn"},

	// Invariant: one reader and one writer for each side.
	{"what is pipelined behind a login is lost", "proxy session.login", argument(3, "newTunnel", 1), becomes("nil"), "proxy TestOneReaderAndOneWriterPerSide"},
	{"what an upstream says behind a login is lost", "proxy session.login", argument(4, "newTunnel", 1), becomes("nil"), "test/relay TestCapabilitiesDuringALoginAreTrueAndUntouchedAfterIt"},
	{"a client does not wait for its answer", "proxy forwarding.answer", body, first("return answer{}, nil"), "proxy FuzzRelay"},
	{"a login that is refused opens the tunnel", "proxy forwarding.loggedIn", part("ok", 2), always, "proxy TestAFailedLoginIsNotTriedOnAnotherUpstream"},
	{"a failed login is tried on another upstream", "proxy commandSide.replaceable", part("upstreamKnowsClient", 1), always, "proxy TestAFailedLoginIsNotTriedOnAnotherUpstream"},

	// Invariant: no byte goes upstream for a refused client.
	{"an explained client is served", "proxy session.tlsOutcome", condition("Explain", 1), never, "proxy TestNoByteGoesUpstreamForARefusedClient"},
	{"everybody may be passed through", "proxy recorder.hold", part("pass", 1), never, "proxy TestNoOtherClientIsPassedThrough"},
	{"any SSLv2 hello is passed through", "proxy session.sslv2Hello", part("PassThrough", 1), always, "proxy TestNoOtherClientIsPassedThrough"},
	{"an alert of the old server is a success", "proxy session.passThrough", condition("alert", 1), never, "proxy TestAnAlertOfTheOldServerIsDelivered"},
	{"a client is not passed through whole", "proxy recorder.add", assignment("bytes", 1), skipped, "proxy TestAClientThatGoCannotServeIsPassedThroughUntouched"},

	// Invariant: nothing from before STARTTLS survives it.
	{"what is pipelined behind STARTTLS is taken", "proxy session.startTLS", condition("Buffered", 1), never, "proxy TestNothingFromBeforeSTARTTLSSurvives"},
	{"an injection is not counted", "proxy session.startTLSFailed", call("Injection", 1), skipped, "proxy TestNothingFromBeforeSTARTTLSSurvives"},
	{"a mail server that greets is up", "proxy imapDialect.capabilities", condition("status", 1), never, "proxy TestThePROXYHeaderIsNoCommand"},
	{"an upstream may answer more than STARTTLS", "internal/mailproto Dialogue.StartTLS", condition("Buffered", 1), never, "test/upstream TestAnUpstreamThatPlaysWithSTARTTLSIsRefused"},
	{"an upstream may log in beforehand", "proxy imapDialect.judgeGreeting", condition("OK", 1), always, "test/relay TestAnUpstreamThatDoesNotGreetWell"},
	{"STARTTLS inside TLS goes upstream", "proxy imapDialect.relayCommand", condition("STARTTLS", 1), never, "test/relay TestSTARTTLSAndXCLIENTInsideTLSAreNotForwarded"},
	{"XCLIENT inside TLS goes upstream over POP3", "proxy pop3Dialect.relayCommand", condition("pop3ForProxies", 1), never, "test/relay TestSTARTTLSAndXCLIENTInsideTLSAreNotForwarded"},
	{"a client may say where it comes from", "internal/mailproto forbiddenID", body, first("return false"), "internal/mailproto TestForbiddenIDFieldsAreTakenOut"},
	{"STARTTLS is offered inside TLS", "internal/mailproto FilterIMAPCapabilities", part("STARTTLS", 1), never, "internal/mailproto TestCapabilitiesThatDoNotHoldInsideTLSDisappearFromAllFourPlaces"},
	{"channel binding is offered", "internal/mailproto bindsChannel", body, first("return false"), "internal/mailproto TestCapabilitiesThatDoNotHoldInsideTLSDisappearFromCAPA"},
	{"a certificate of an upstream need not be right", "proxy Server.SetUpstreamRoots", argument(1, "Store", 1), becomes("&tls.Config{InsecureSkipVerify: true}"), "test/upstream TestABadUpstreamCertificateIsNeverTrusted"},
	{"anybody is believed a PROXY header", "proxy session.proxyHeaderDue", body, first("return true"), "test/upstream TestPROXYHeadersFromOtherPeersAreNotBelieved"},

	// Invariant: credentials reach no log, metric or event.
	{"a command is logged", "proxy imapDialect.relayCommand", body, first(`c.s.srv.cfg.Log.Debug("command", "line", string(line))`), "proxy TestCredentialsNeverReachALog"},
	{"a password is an account", "internal/mailproto Identity.POP3Command", value("Account", 1), becomes("string(cmd.Args)"), "proxy TestAnAccountIsReportedWithALoginAlone"},
	{"a password is an account of SASL", "internal/mailproto Identity.Response", argument(1, "accountOf", 1), becomes("message[:n]"), "internal/mailproto FuzzSASLAccount"},
	{"an account is reported where nobody asked", "proxy session.identified", part("Identity", 1), always, "proxy TestNoOtherClientIsIdentified"},
	{"the account of a modern client is reported", "proxy session.identified", part("Legacy", 1), always, "proxy TestNoOtherClientIsIdentified"},
	{"a login before TLS is not counted", "proxy stage.cleartextLogin", call("CleartextLogin", 1), skipped, "test/relay TestIMAPLoginsBeforeTLSAreRefusedAndForgotten"},
	{"a password is asked for before TLS", "proxy imapDialect.commandBeforeTLS", argument(2, "skipLiterals", 1), becomes("true"), "test/relay TestIMAPLoginsBeforeTLSAreRefusedAndForgotten"},
	{"an error tells the password of the database", "internal/ledger Redacted", body, first("return ledgerURL"), "internal/ledger TestAnErrorHoldsNoPassword"},
	{"a secret that does not parse is echoed", "internal/config variable.text", condition("secret", 1), never, "internal/config TestASecretIsNeverEchoed"},

	// Invariant: the events of a connection, exactly once and in order.
	{"a handshake that failed is not reported", "proxy session.ended", call("report", 1), skipped, "proxy TestEveryConnectionYieldsItsEventsOnceAndInOrder"},
	{"a handshake that failed is reported twice", "proxy session.ended", call("report", 1), first("s.report(o, f)"), "proxy TestEveryConnectionYieldsItsEventsOnceAndInOrder"},
	{"a login is not reported", "proxy session.login", call("Login", 1), skipped, "proxy TestEveryConnectionYieldsItsEventsOnceAndInOrder"},
	{"an end is not reported", "proxy session.end", call("Closed", 1), skipped, "proxy TestEveryConnectionYieldsItsEventsOnceAndInOrder"},
	{"a failed login is not counted", "proxy forwarding.loggedIn", assignment("failedLogins", 1), skipped, "proxy TestTheAccountOfALegacySessionIsReported"},

	// The identities of the counters.
	{"a legacy handshake is counted once", "metrics Metrics.Handshake", condition("Legacy", 1), never, "metrics TestSumsOfHandshakesAgree"},
	{"a failure has no reason", "metrics Metrics.Handshake", call("Add", 3), skipped, "metrics TestSumsOfHandshakesAgree"},
	{"a connection stays open", "metrics Metrics.Closed", call("Add", 1), skipped, "metrics TestEveryEventMovesItsSeriesAlone"},
	{"a line that is left out is not counted", "internal/logging Suppression.Allow", call("Add", 1), skipped, "internal/logging TestEveryHandshakeIsAccountedForOnce"},
	{"a client floods the log", "internal/logging Suppression.Allow", condition("full", 1), never, "internal/logging TestTwentyLinesOfAClientThenOneAtTheMinutesEnd"},

	// The ledger: nothing is lost, and nothing counts twice.
	{"a sighting is not counted", "internal/ledger Recorder.record", call("of", 1), skipped, "internal/ledger TestSightingsOfOneClientAddUp/sqlite"},
	{"a modern client is remembered", "internal/ledger Recorder.record", part("NotLegacy", 1), never, "internal/ledger TestModernHandshakesAreNotRemembered"},
	{"a candidate remembers nobody", "internal/ledger Recorder.concerned", part("Has", 1), never, "internal/ledger TestCandidatesHaveLedgersOfTheirOwn/sqlite"},
	{"the ledger of a candidate has no bound", "internal/ledger writer.bounded", part("most", 1), always, "internal/ledger TestTheLedgerOfACandidateIsBounded/sqlite"},
	{"the ledger of a candidate forgets nobody", "internal/ledger Store.ofCandidates", body, first("return nil"), "internal/ledger TestCandidatesForget/sqlite"},
	{"what was written is written again", "internal/ledger Recorder.commit", call("acknowledge", 1), skipped, "internal/ledger TestSightingsOfOneClientAddUp/sqlite"},
	{"a commit in doubt is written twice", "internal/ledger Recorder.write", call("acknowledge", 1), skipped, "internal/ledger TestACommitInDoubtIsAskedFor"},
	{"a client that was pruned is lost", "internal/ledger writer.known", part("run", 1), never, "internal/ledger TestAClientThatWasPrunedComesBack"},
	{"go is said though clients are not written", "internal/report Report.judge", part("Unwritten", 1), always, "internal/report TestClientsThatAreNotWrittenAreNoGo"},
	{"logins are not written", "internal/ledger Store.add", call("logins", 1), skipped, "internal/ledger TestAClientWhoseLoginsAllFailedIsNoise/sqlite"},
	{"the end does not write the rest", "internal/ledger Recorder.Close", body, first("return nil"), "internal/ledger TestTheEndWritesTheRest"},
	{"an account is kept by its name", "internal/ledger Recorder.stored", call("identity", 1), becomes("account"), "internal/ledger TestAHashIsKeptInPlaceOfTheAccount/sqlite"},
	{"what is erased comes back", "internal/ledger Recorder.erase", call("erase", 1), skipped, "internal/ledger TestAForgottenAccountIsGoneEverywhere/sqlite"},
	{"a scanner is a client", "internal/ledger scanMarks", body, first("return 0"), "internal/ledger TestAScannerIsNoise/sqlite"},

	// The admin port: who may see the page and the API.
	{"any Host will do", "internal/admin ownHost", body, first("return true"), "internal/admin TestTheAPIAnswersUnderNamesOfThisHostAlone"},
	{"off loopback no token is needed", "internal/admin access.decide", condition("loopback", 1), always, "internal/admin TestOffLoopbackTheTokenIsNeeded"},
	{"a wrong token is as good as a right one", "internal/admin access.decide", condition("right", 1), never, "internal/admin TestOffLoopbackTheTokenIsNeeded"},
	{"tokens can be guessed for ever", "internal/admin access.decide", condition("wait", 1), never, "internal/admin TestTenWrongTokensAMinuteAndNoMore"},

	// What is read again: bad input keeps the old.
	{"a bad certificate takes the place of a good one", "internal/certs Renew", part("validNow", 1), never, "internal/certs TestRenew"},
	{"a bad policy takes the place of a good one", "internal/gate Runtime.reloadPolicy", condition("err", 1), never, "test/policy TestABadFileChangesNothing"},
	{"an unknown variable is passed over", "internal/config loader.refuseUnknown", body, first("return"), "internal/config TestABadValueIsOneLineThatNamesTheVariable"},

	// Limits, and the end.
	{"a client has one connection too many", "proxy clientLimits.enter", comparison("ConnectionsPerClient", 1), boundary, "proxy TestConnectionsAreCountedPerClient"},
	{"handshakes are not limited", "proxy clientLimits.allowHandshake", returned("AllowN", 1), first("return true"), "proxy TestHandshakesComeBackWithTime"},
	{"LIMIT_CONNECTIONS holds nobody", "proxy session.admit", condition("overLimit", 1), never, "test/limits TestConnectionsOverTheLimitAreRejected"},
	{"literals before a login have no end", "proxy forwarding.checkLiteral", comparison("literals", 1), never, "test/relay TestALiteralOver256KBIsNotTaken"},
	{"a shutdown cuts a session that is logged in", "proxy Server.Shutdown", call("drain", 1), skipped, "proxy TestALoginThatTheClientKnowsOfRunsOnAtShutdown"},
	{"a silent session never ends", "proxy tunnel.checkIdle", condition("left", 1), never, "proxy TestAParkedSessionEndsAfterTheIdleTime"},
}
