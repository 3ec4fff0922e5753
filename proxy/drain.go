package proxy

import (
	"context"
	"maps"
	"slices"
	"time"
)

// idleBefore is how long a session must have been silent at least to count as
// idle when the server stops; and none does whose upstream still has to answer.
const idleBefore = time.Second

// cutTime is what cutting the last connections may take.
const cutTime = 250 * time.Millisecond

// Shutdown stops the server: it accepts no new connections, and clients that have not
// logged in get a last word at once. Tunnels run on for up to TIMEOUT_DRAIN; idle ones
// are closed evenly over its second half, so that the clients do not all come back at
// once. Shutdown returns when all are gone; when ctx ends, it cuts them.
func (srv *Server) Shutdown(ctx context.Context) {
	srv.stopAccepting()
	srv.mu.Lock()
	srv.cancel()
	srv.mu.Unlock()
	ended := srv.allEnded()
	for _, s := range srv.openSessions() {
		if s.tunnel.Load() == nil {
			s.raw.SetReadDeadline(past)
		}
	}
	// A little is left for cutting connections, and for what stops after the server.
	ctx, cancel := context.WithTimeout(ctx, srv.cfg.TimeoutDrain-min(srv.cfg.TimeoutDrain/20, cutTime))
	defer cancel()
	go func() {
		<-ended
		cancel()
	}()
	srv.drain(ctx)
	srv.cut(ended)
	srv.idleSet.Close()
	srv.accepting.Wait()
	srv.work.Wait()
}

// openSessions lists the sessions that have not ended.
func (srv *Server) openSessions() []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return slices.Collect(maps.Keys(srv.open))
}

// drain lets sessions end until ctx does.
func (srv *Server) drain(ctx context.Context) {
	end, _ := ctx.Deadline()
	for wait := srv.cfg.TimeoutDrain / 2; sleep(ctx, wait); {
		t, n := srv.mostIdle()
		wait = idleBefore / 10
		if t != nil {
			t.closeInOrder()
			wait = time.Until(end) / time.Duration(n+1)
		}
	}
}

// mostIdle finds the tunnel that has been silent for the longest time, and how many
// are idle.
func (srv *Server) mostIdle() (most *tunnel, n int) {
	now := time.Now()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	idle := max(idleBefore, srv.cfg.TimeoutDrain/4)
	longest := idle
	for s := range srv.open {
		t := s.tunnel.Load()
		if t == nil || t.state.Load() == tunnelClosing || t.writing.Load() > 0 || t.awaitingReply.Load() || t.silence(now) < idle {
			continue
		}
		n++
		if silence := t.silence(now); silence >= longest {
			most, longest = t, silence
		}
	}
	if most != nil {
		most.state.Store(tunnelClosing)
	}
	return most, n
}

// cut ends what is left.
func (srv *Server) cut(ended <-chan struct{}) {
	for _, s := range srv.openSessions() {
		if t := s.tunnel.Load(); t != nil {
			go t.abort() // an upstream may be slow to take a close_notify
		} else {
			s.raw.Close()
		}
	}
	select {
	case <-ended:
	case <-time.After(cutTime / 2):
	}
}
