package main

// parkMutants break what is done for sessions that are silent.
func parkMutants() []mutant {
	const splice, park = "proxy/splice.go", "proxy/park.go"
	parks, ends := proxyUnit("^TestASilentSessionParksAndGoesOn$"), proxyUnit("^TestAParkedSessionEndsAfterTheIdleTime$")
	late := proxyUnit("^TestALateEventWakesNobodyElse$")
	return []mutant{
		{
			name: "a silent session keeps its goroutines",
			file: splice,
			old:  "if !half && silent >= parkAfter && p.drained() {",
			new:  "if half && silent >= parkAfter {",
			seen: parks,
		},
		{
			name: "a session parks only once",
			file: splice,
			old:  "\ts.setSilence(from, s.srv.cfg.TimeoutIdle)\n\tfor {",
			new:  "\tfor {",
			seen: parks,
		},
		{
			name: "nobody looks whether a parked session is idle",
			file: splice,
			old:  "\t\ts.watchIdle(left)\n",
			new:  "",
			seen: ends,
		},
		{
			name: "a parked session is idle though it has just spoken",
			file: splice,
			old:  "left := s.srv.cfg.TimeoutIdle - s.silent(time.Now())",
			new:  "left := time.Duration(0)",
			seen: proxyUnit("^TestAParkedSessionThatSpeaksHasItsIdleTimeAnew$"),
		},
		{
			name: "a parked session does not notice that it is closed",
			file: park,
			old:  "\tp.lot.mu.Unlock()\n\tif parked {\n",
			new:  "\tp.lot.mu.Unlock()\n\tif false {\n",
			seen: ends,
		},
		{
			name: "a late event wakes somebody else",
			file: park,
			old:  "s.p != nil && s.turn == e.turn",
			new:  "s.p != nil",
			seen: late,
		},
		{
			name: "a slot has the same turn again",
			file: park,
			old:  "slot{turn: l.slots[i].turn + 1}",
			new:  "slot{turn: l.slots[i].turn}",
			seen: late,
		},
		{
			name: "a descriptor that is known is made known again",
			file: park,
			old:  "\tp.known = true\n",
			new:  "",
			seen: parks,
		},
		{
			name: "a session parks on what has left the socket alone",
			file: splice,
			old:  "silent >= parkAfter && p.drained() {",
			new:  "silent >= parkAfter {",
			seen: proxyUnit("^TestASessionParksOnlyWhenItHasNothingLeft$"),
		},
		{
			name: "who is parked is left in a lot that closes",
			file: park,
			old:  "for _, p := range parked {",
			new:  "for _, p := range parked[:0] {",
			seen: proxyUnit("^TestNobodyIsLeftInALotThatCloses$"),
		},
	}
}

// flowMutants break single reads and writes after login.
func flowMutants() []mutant {
	const poll = "proxy/poll.go"
	return []mutant{
		{
			name: "crypto/tls is given more than a record",
			file: "proxy/conn.go",
			old:  "\t\treturn r.length\n",
			new:  "\t\treturn r.length + recordHeaderLen\n",
			seen: proxyUnit("^TestRecordsKnowsWhereRecordsEnd$"),
		},
		{
			name: "what is said before STARTTLS counts as records",
			file: "proxy/handshake.go",
			old:  "\ts.raw.records = records{}",
			new:  "\t_ = records{}",
			seen: proxyUnit("^TestRecordsBeginWithTLS$"),
		},
		{
			name: "a write that has waited leaves its deadline behind",
			file: poll,
			old:  "if p.waited && err == nil {",
			new:  "if p.waited && err != nil {",
			seen: proxyUnit("^TestAWriteAfterOneThatWaitedHasItsTime$"),
		},
		{
			name: "a write that waits cannot be hurried",
			file: poll,
			old:  "\tp.patience.Store(int64(patience))\n\tif p.deadliner != nil {\n",
			new:  "\tp.patience.Store(int64(patience))\n\tif false {\n",
			seen: proxyUnit("^TestAWriteThatWaitsCanBeHurried$"),
		},
	}
}

// thresholdMutants break what is done with connections that come in.
func thresholdMutants() []mutant {
	const poll, door = "proxy/poll.go", "proxy/door.go"
	return []mutant{
		{
			name: "an option of accepted sockets is left out",
			file: poll,
			old:  "\t{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},\n",
			new:  "",
			seen: proxyUnit("^TestAcceptedConnectionsHaveTheirOptions$"),
		},
		{
			name: "who waits in the room stays there",
			file: "proxy/accept.go",
			old:  "\t\tif !n.at.After(since) {\n",
			new:  "\t\tif false {\n",
			seen: proxyUnit("^TestASilentClientHasASessionSoon$"),
		},
		{
			name: "who may come in is turned away on the threshold",
			file: door,
			old:  "return hs.verdict.Legacy() && hs.verdict.Mode == policy.Enforce",
			new:  "return hs.verdict.Legacy()",
			seen: proxyUnit("^TestTheThresholdLetsInWhoMayComeIn$"),
		},
		{
			name: "the threshold forgets to tell the end",
			file: door,
			old:  "\td.s.tellClosed(WhyHandshake)\n",
			new:  "",
			seen: proxyUnit("^TestTheThresholdSaysTheSameAsASession$"),
		},
		{
			name: "dice are thrown twice",
			file: door,
			old:  "d.srv.begin(d.listener, a, dice, d.first[:n], err)",
			new:  "d.srv.begin(d.listener, a, rand.Uint64(), d.first[:n], err)",
			seen: proxyUnit("^TestAShareOfConnectionsIsTheSameOnTheThreshold$"),
		},
		{
			name: "who came early has no options",
			file: poll,
			old:  "failed = setOptions(int(fd)) }), failed)\n\t}}",
			new:  "failed = nil }), failed)\n\t}}",
			seen: proxyUnit("^TestListenConfigSetsOptionsFromTheFirstConnectionOn$"),
		},
		{
			name: "a dead upstream on another host is never noticed",
			file: poll,
			old:  "ok && !upstream.IsLoopback() {",
			new:  "ok && upstream.IsLoopback() {",
			seen: proxyUnit("^TestUpstreamsOnOtherHostsAreKeptAlive$"),
		},
	}
}
