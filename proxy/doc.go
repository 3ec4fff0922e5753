// Package proxy carries a mail client's connection from accept to close.
//
// The life of one connection is session.serve in conn.go, and reads in this order:
//
//	accept           With implicit TLS the kernel hands a connection over once the
//	                 client has sent something, or after a second. An old hello that
//	                 the policy rejects may be rejected in the accept loop already,
//	                 without a goroutine or crypto/tls (see rejectEarly). Every other
//	                 connection gets a goroutine, which runs session.run.
//	readProxyHeader  Some peers send a PROXY header first, which says whose
//	                 connection it is. Then admit counts it towards the limits per client.
//	startTLS         On imap and pop3 Postern greets, and answers what may be asked
//	                 before TLS. It refuses logins without looking at the credentials.
//	                 STARTTLS or STLS ends this stage; TLS or pipelined bytes too soon
//	                 end the connection.
//	handshake        The first bytes say what it is. Text is answered with text, an
//	                 SSLv2-compatible ClientHello with an alert. All else is crypto/tls:
//	                 it calls configForClient with the hello, which asks the policy that
//	                 is in force, and returns the strict configuration or the lenient
//	                 one. report tells the observer the outcome, now and not when the
//	                 connection ends.
//	passThrough      A legacy client that may come in, but that crypto/tls cannot serve,
//	                 or that its rule has passed through always, is passed through where
//	                 there is an old server for it: crypto/tls ends without a word, and
//	                 what it has read goes to that server's own TLS port. If that answers,
//	                 the connection is a tunnel from then on; if not, crypto/tls reads the
//	                 same bytes again, and serves or rejects. A hello that crypto/tls has
//	                 no sense of is judged when it sends its alert (see judgeUnreadable).
//	explain          An explained client hears why, where its program will show it, and no
//	                 upstream is dialled.
//	login            For the others the upstream with the least connections is dialled, or
//	                 the next one where it does not greet. Then commands and replies are
//	                 relayed in lockstep (see relay): capabilities that do not hold inside
//	                 TLS are filtered, what only a proxy may say is taken out of an ID, and
//	                 STARTTLS, XCLIENT and early COMPRESS are answered here. An upstream
//	                 that goes away between two commands, before it knows anything of the
//	                 client, is replaced by another one.
//	tunnel           The upstream has accepted a login. From here on bytes are bytes, in
//	                 two goroutines, each of which passes on the end of its side; what
//	                 the client has pipelined behind its login goes first. After one to two
//	                 seconds of silence both park: they hold no goroutine and no buffer
//	                 until there is something to read (see package netpoll).
//	end              The connection is closed, and the observer learns why.
//
// A session has no flags for its state, but types: admission says which limits it counts
// towards, a handshake exists while it is under way, a relay before login, and a tunnel
// from login on or once the client is passed through.
//
// Words: a floor is what a handshake must reach; the strict TLS configuration enforces
// it, the lenient one serves legacy clients, where the policy lets them in. An old server
// is the one whose own TLS port serves those that crypto/tls cannot. A tunnel parks when
// it holds no goroutine any more. To reject and to refuse are the same.
//
// A connection may end in several ways:
//
//	farewell      A last word in clear; discards what still comes, and closes.
//	lastWord      A last word inside TLS, and nothing else.
//	tlsFarewell   lastWord, then closeTLS.
//	closeTLS      close_notify and FIN; discards what still comes, and closes.
//	finish        Closes a socket; discards first what the client has sent.
//	failed        Reports a failed handshake, and then finish.
//	closeInOrder  Ends a tunnel: close_notify to the client, and closes both sockets.
//	abort         Ends a tunnel at once.
//	end           What comes after each of these: limits, Closed, and the server's list.
//
// Six things hold at all times, each kept by the test that is named with it:
//
//   - crypto/tls enforces, the policy explains: under a policy that, from now
//     on, can only enforce no lenient configuration exists, so that a mistake in
//     the policy may mislabel a handshake but lets nobody in
//     (TestNoLenientConfigExistsUnderEnforce).
//   - Each side has one reader and one stream of writes from accept to close, so
//     that what is pipelined arrives whole and in order
//     (TestOneReaderAndOneWriterPerSide).
//   - For a client that is rejected or explained no byte goes upstream, and no
//     upstream is dialled (TestNoByteGoesUpstreamForARefusedClient). Nor is an old
//     server, unless the client was to be passed through to it and got no answer
//     (TestNoOtherClientIsPassedThrough).
//   - Nothing that was said before STARTTLS or STLS has a meaning after it, on
//     either side (TestNothingFromBeforeSTARTTLSSurvives). Of a client that is legacy or Remembered it is
//     remembered in which manner it was said, which decides nothing (mailproto.Speech).
//   - No password, token or SASL response reaches a log, a metric or an event,
//     at any level (TestCredentialsNeverReachALog). An account reaches Login, LoginFailed
//     and Software alone, and none of them where Config.Identity is off
//     (TestAnAccountIsReportedWithALoginAlone).
//   - A connection yields its events exactly once and in order: Handshake if
//     TLS was to begin, Login if the upstream accepted one, Software if an
//     observed client says only then what it is, Closed; before Login there may be
//     any number of LoginFailed
//     (TestEveryConnectionYieldsItsEventsOnceAndInOrder).
package proxy
