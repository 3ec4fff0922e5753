// Package proxy carries a mail client's connection from accept to close.
//
// The life of one connection, as session.serve tells it:
//
//	enter        A connection is accepted as a bare descriptor. With implicit TLS
//	             it is looked at on the threshold (see door.go): an old hello that
//	             the policy refuses is refused there, and was never a session. Who
//	             has said nothing yet waits a moment for that.
//	begin        The others get a session, one goroutine of the crew's, and one
//	             reader, which they keep to the end.
//	overLimit    Who it is: from some peers a PROXY header says so first. One
//	             client, or all together, may be too many.
//	startTLS     On imap and pop3 the gate greets, and answers what may be
//	             asked before TLS. Logins are refused unread. STARTTLS or STLS
//	             ends this dialogue; TLS or bytes too soon end the connection.
//	shakeHands   The first bytes say what it is. Text is answered with text, a
//	             hello in SSL 2.0 format with an alert. All else is crypto/tls:
//	             its hook hands the hello to the policy that is in force at
//	             that moment, which says whether the strict configuration or
//	             the lenient one answers it.
//	passThrough  A legacy client that may come in, but that crypto/tls cannot
//	             serve, is passed through where there is an old server for it:
//	             crypto/tls ends without a word, and what it has read goes to
//	             that server's own TLS port, byte for byte. Once the answer has
//	             begun both directions are copies as after a login, TLS and all,
//	             and nobody is named. Without an answer crypto/tls reads the
//	             same bytes again, and refuses.
//	report       The handshake has ended, in one of five outcomes; the observer
//	             is told now, not when the connection ends.
//	tlsFarewell  An explained client is told why, and that is all: what it says
//	             inside TLS is thrown away, no upstream is dialled.
//	connect      For the others the least busy upstream is dialled, and the
//	             next one where it does not greet.
//	relay        Lockstep: the client's side sends one whole command upstream
//	             and reads no further before its answer; the upstream's side
//	             always flows. What is untrue inside TLS is taken out of
//	             greeting and capabilities, what only a proxy may say is taken
//	             out of an ID, and STARTTLS, XCLIENT and early COMPRESS are
//	             answered here. All else passes as it came. An upstream that
//	             goes away between two commands, before it knows anything of
//	             the client, is replaced by another one. With Config.Identity
//	             the account of each login, and what an ID says, are listened
//	             to on their way, if the client is a legacy one.
//	copyBoth     The upstream has accepted a login. From here on bytes are
//	             bytes, in two goroutines, each passing on the end of its side;
//	             what the client sent behind its login goes first. After a second
//	             of silence both are parked: no goroutine and no buffer is theirs
//	             until somebody speaks (see poll.go). Where it is
//	             still to be known what a legacy client is, its first commands
//	             are read along for an ID, behind their copy.
//	end          The connection is closed and the observer told why.
//
// Six things hold at all times, each kept by the test that is named with it:
//
//   - crypto/tls enforces, the policy explains: under a policy that, from now
//     on, can only enforce no lenient configuration exists, so that a mistake in
//     the policy may mislabel a handshake but lets nobody in
//     (TestNoLenientConfigExistsUnderEnforce).
//   - Each side has one reader and one writer from accept to close, so that
//     what is pipelined arrives whole and in order
//     (TestOneReaderAndOneWriterPerSide).
//   - For a client that is refused or explained no byte goes upstream, and no
//     upstream is dialled (TestNoByteGoesUpstreamForARefusedClient); nor is an
//     old server, but for one that was to be passed through to it and has had
//     no answer (TestNobodyElseIsPassedThrough).
//   - Nothing that was said before STARTTLS or STLS has a meaning after it, on
//     either side (TestNothingFromBeforeSTARTTLSSurvives).
//   - No password, token or SASL response reaches a log, a metric or an event,
//     at any level (TestCredentialsNeverReachALog); an account reaches Login and
//     Software alone, and none of it where Config.Identity is off
//     (TestAnAccountIsToldWithALoginAlone).
//   - A connection yields its events exactly once and in order: Handshake if
//     TLS was to begin, Login if the upstream accepted one, Software if an
//     observed client says only then what it is, Closed
//     (TestEveryConnectionYieldsItsEventsOnceAndInOrder).
package proxy
