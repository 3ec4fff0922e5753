package main

// copyMutants break the copies after login.
func copyMutants() []mutant {
	const file = "proxy/splice.go"
	pop3 := mail("^TestPOP3LoginsFailAndSucceedAsTheUpstreamSays$/^pop3s USER and PASS$")
	return []mutant{
		{
			name: "what is pipelined behind a login is lost",
			file: "proxy/session.go",
			old:  "s.copyBoth(client.buffered(), r.upstream.buffered())",
			new:  "s.copyBoth(nil, r.upstream.buffered())",
			seen: relays("^TestWhatIsPipelinedBehindALoginWaitsForItAndArrivesInOrder$"),
		},
		{
			name: "a byte is changed in a body",
			file: file,
			old:  "\t\t\twerr := write(buf[:n])\n",
			new:  "\t\t\tif n > 1000 {\n\t\t\t\tbuf[n/2] ^= 1\n\t\t\t}\n\t\t\twerr := write(buf[:n])\n",
			seen: pop3,
		},
		{
			name: "the last byte of a full buffer is dropped",
			file: file,
			old:  "\t\t\twerr := write(buf[:n])\n",
			new:  "\t\t\twerr := write(buf[:min(n, len(buf)-1)])\n",
			seen: mail("^TestMailboxArrivesIdenticalToDirectAccess$"),
		},
		{
			name: "a read that finds nothing breaks TLS",
			file: "proxy/poll.go",
			old:  "func (wouldBlock) Temporary() bool { return true }",
			new:  "func (wouldBlock) Temporary() bool { return false }",
			seen: proxyUnit("^TestWouldBlockIsNotRemembered$"),
		},
		{
			name: "the client's half-close does not reach the upstream",
			file: file,
			old:  "poll.hurry(closeNotifyTime)\n\t\ts.upstream.CloseWrite()\n",
			new:  "poll.hurry(closeNotifyTime)\n",
			seen: relays("^TestAClientThatClosesItsSideStillReads$"),
		},
		{
			name: "a half-close ends the other direction",
			file: file,
			old:  "\ts.half.Store(true)\n",
			new:  "\ts.half.Store(true)\n\tother.Close()\n",
			seen: relays("^TestAClientThatClosesItsSideStillReads$"),
		},
		{
			name: "a word is said into a stream whose upstream died",
			file: file,
			old:  "\ts.raw.poll.hurry(closeNotifyTime)\n\ts.closeNotify()\n",
			new:  "\ts.tls.Write(s.dialect.goodbye(noticeUnavailable, \"The mail server went away.\"))\n\ts.closeNotify()\n",
			seen: relays("^TestAnUpstreamThatDiesAfterLoginLeavesNoWord$"),
		},
		{
			name: "a single byte is not counted",
			file: "proxy/session.go",
			old:  "\tif n == 0 {\n\t\treturn\n",
			new:  "\tif n <= 1 {\n\t\treturn\n",
			seen: relays("^TestByteCountsAreExact$"),
		},
		{
			name: "the gate's own words are counted as relayed",
			file: "proxy/relay.go",
			old:  "\t_, err := r.s.tls.Write(p)\n\treturn err\n",
			new:  "\treturn r.deliver(p)\n",
			seen: relays("^TestByteCountsAreExact$"),
		},
		{
			name: "a session is idle though the other direction is busy",
			file: file,
			old:  "left := limit - silent",
			new:  "left := limit - max(limit, silent)",
			seen: relays("^TestTimeoutIdleEndsWhoIsSilentAndNobodyElse$/^imaps$"),
		},
	}
}
