package main

// mutants are the breaches, by the package whose promise they break.
var mutants = []mutant{
	// The policy: what is legacy, and which rule decides.
	{"a client that falls back is let in", "policy Snapshot.Decide", part("Fallback", 1), never, "policy TestWhoIsServedBelowTheFloor"},
	{"the mode of a rule is not used", "policy Snapshot.Decide", assignment("Mode", 1), skipped, "policy TestTheFirstRuleThatMatchesDecides"},
	{"a candidate judges as the floor does", "policy Snapshot.Decide", assignment("judged", 1), skipped, "policy TestCandidatesAreJudgedBesideTheFloor"},
	{"a fallback is a version like any other", "policy Floor.judge", condition("Fallback", 1), never, "policy TestVerdictsByHelloAndFloor"},
	{"an SSLv2 format is never a reason", "policy Floor.judge", condition("SSL2Format", 1), never, "policy TestVerdictsByHelloAndFloor"},
	{"the last moment of a rule is within it", "policy Rule.within", returned("", 1), first("return !t.Before(r.From) && !t.After(r.Until)"), "policy TestARuleIsInForceFromItsFirstToBeforeItsLastMoment"},
	{"a share of everybody is a share of nobody", "policy Share.takes", body, first("return false"), "policy TestAShareOfTheClientsIsWhatItSays"},

	// The admin port: who may see the page and the API.
	{"any Host will do", "internal/admin ownHost", body, first("return true"), "internal/admin TestTheAPIAnswersUnderNamesOfThisHostAlone"},
	{"off loopback no token is needed", "internal/admin access.decide", condition("loopback", 1), always, "internal/admin TestOffLoopbackTheTokenIsNeeded"},
	{"a wrong token is as good as a right one", "internal/admin access.decide", condition("right", 1), never, "internal/admin TestOffLoopbackTheTokenIsNeeded"},
	{"tokens can be guessed for ever", "internal/admin access.decide", condition("wait", 1), never, "internal/admin TestTenWrongTokensAMinuteAndNoMore"},
	{"an IPv6 client has 2^64 tries", "internal/admin clientKey", condition("Is6", 1), always, "internal/admin TestGuessesAreCountedByConnection"},
}
