package gate_test

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"postern/internal/demo"
	"postern/policy"
)

// TestStoryOfACutThatAGuardTakesBack: old clients that have logged in for months meet the
// cut. More than the guard allows do, and it takes the cut back. A person repeats it, and
// knows that it will hurt; their graces are over by then.
func TestStoryOfACutThatAGuardTakesBack(t *testing.T) {
	st := open(t, "growing-share.yaml", at(t, "2026-11-25T12:00:00Z"))
	const allowed = 20
	var known []netip.Addr
	for range allowed + 1 {
		known = append(known, st.address("127.50"))
	}
	meet := func(client netip.Addr, want string) {
		t.Helper()
		st.visit(&visitor{want: want, entry: st.entries["imaps"], Client: demo.Client{
			Generation: policy.TLS10, Roots: st.ca.Pool, Account: st.mail.Accounts()[0], Password: demo.Password, From: client, NoServerName: true,
		}})
	}
	everybody := func(want string) {
		t.Helper()
		for _, client := range known {
			meet(client, want)
		}
	}
	tripped := func(want float64) {
		t.Helper()
		for end := time.Now().Add(logTimeout); st.series("postern_guard_tripped")["cut-over"] != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("postern_guard_tripped is not %v", want)
			}
		}
	}
	everybody("observe")
	graced := func(client netip.Addr) bool { return st.postern.Graced("cut-over", client) }
	for end := time.Now().Add(logTimeout); !allOf(known, graced); time.Sleep(10 * time.Millisecond) {
		if err := st.postern.FlushLedger(context.Background()); err != nil || time.Now().After(end) {
			t.Fatalf("their logins are not known: %v", err)
		}
	}

	st.set(at(t, "2027-07-06T07:30:00Z"))
	for range 2 * allowed {
		meet(st.address("127.10"), off) // who has never logged in
	}
	for _, client := range known[1:] {
		meet(client, "explain by cut-over")
		meet(client, "explain by cut-over")
	}
	time.Sleep(knownWithin)
	tripped(0)
	meet(known[0], "explain by cut-over")
	tripped(1)
	everybody("observe by cut-over")
	if st.log.find(logTimeout, func(l *storyLine) bool { return l.Msg == "guard tripped" && l.Rule == "cut-over" }) == nil {
		t.Error("no line tells that the guard has tripped")
	}

	time.Sleep(knownWithin)
	st.set(at(t, "2027-07-20T07:30:00Z"))
	everybody("observe by cut-over")
	serving := st.log.find(logTimeout, func(l *storyLine) bool { return l.Msg == "serving" })
	if serving == nil {
		t.Fatal("no line tells where the admin port is")
	}
	release := func(query url.Values, status int) {
		t.Helper()
		r, err := http.Post("http://"+serving.Admin+"/api/v1/guards?"+query.Encode(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != status {
			t.Errorf("releasing: %s", r.Status)
		}
	}
	release(url.Values{"release": {"cut-over"}, "until": {"2027-07-19T00:00:00Z"}}, http.StatusBadRequest)
	release(url.Values{"release": {"cut-over"}, "until": {"soon"}}, http.StatusBadRequest)
	release(url.Values{"release": {"all are told"}}, http.StatusBadRequest)
	release(url.Values{"release": {"other"}}, http.StatusBadRequest)
	release(url.Values{"release": {"cut-over"}, "until": {"2027-07-20T08:30:00Z"}}, http.StatusOK)
	tripped(0)
	release(url.Values{"release": {"cut-over"}}, http.StatusConflict)
	everybody(off)
	time.Sleep(knownWithin)
	tripped(0)
	st.set(at(t, "2027-07-20T09:00:00Z"))
	everybody(off)
	tripped(1)
	everybody("observe by cut-over")
}

func allOf[T any](list []T, so func(T) bool) bool {
	return !slices.ContainsFunc(list, func(v T) bool { return !so(v) })
}

// knownWithin is the time in which a refusal is known.
const knownWithin = 4 * time.Second

func at(t *testing.T, s string) time.Time { return moment(t, scene{at: s}) }
