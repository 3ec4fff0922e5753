package admin

import (
	"net/http"
	"net/http/pprof"
)

// profiles serves what go tool pprof asks for.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// onlyLocal answers peers on loopback alone, and only under a name of this
// host: a web page whose name has been made to point to 127.0.0.1 must not
// read along in the operator's browser.
func onlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !loopbackPeer(r):
			writeText(w, http.StatusForbidden, "only for loopback\n")
		case !ownHost(r.Host):
			writeText(w, http.StatusMisdirectedRequest, "not a name of this host\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopbackPeer goes by the connection: no forwarding header makes a peer
// local.
func loopbackPeer(r *http.Request) bool {
	return peerAddr(r).IsLoopback()
}
