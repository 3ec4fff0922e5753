package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"time"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// PolicyState is the policy for /api/v1/policy and the page.
type PolicyState struct {
	Policy *policy.Policy
	// File is its source, or empty; Read is when it was read.
	File string
	Read time.Time
	// Failed is the error of the file that would replace it, or nil.
	Failed    []string
	Listeners []string
	Site      policy.Site
	Now       time.Time
	// FirstRefused returns when rules refused a client first that had logged in.
	FirstRefused func(context.Context, netip.Addr) (map[string]time.Time, error)
}

// Bounds on the next changes.
const (
	maxChanges    = 20
	changesWithin = 2 * 366 * 24 * time.Hour
)

// PolicyHandler answers with the policy in force, its next changes and its
// warnings, as JSON; for client=ADDRESS with what was refused to that client.
func PolicyHandler(state func() PolicyState) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := state()
		view := policyView(s)
		if client, err := netip.ParseAddr(r.URL.Query().Get("client")); err == nil {
			if view.FirstRefused, err = s.FirstRefused(r.Context(), client); err != nil {
				writeError(w, http.StatusServiceUnavailable, unread)
				return
			}
		}
		writeJSON(w, http.StatusOK, view)
	})
}

// Released is a guard that was let go, and the part of its rule's clients that meets its
// mode now: 0 where the rule is not in force.
type Released struct {
	policy.GuardState
	Share float64 `json:"share_now"`
}

// ErrNotTripped is the error for a guard that is to be let go.
var ErrNotTripped = errors.New("it has not tripped: only a time in until (-until) changes anything, before which it counts nothing")

// GuardHandler lets the guard of a rule go: release=RULE, and until=TIME, before which
// nothing counts. It takes no form, which a web page could send.
func GuardHandler(release func(ctx context.Context, rule, until string) (Released, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "" {
			writeError(w, http.StatusUnsupportedMediaType, "release and until belong into the query, and nothing into the body")
			return
		}
		query := r.URL.Query()
		for name := range query {
			if name != "release" && name != "until" { // a guard is not let go early by a slip of the pen
				writeError(w, http.StatusBadRequest, fmt.Sprintf("unknown parameter %.40q: use release, until", name))
				return
			}
		}
		released, err := release(r.Context(), query.Get("release"), query.Get("until"))
		switch {
		case errors.Is(err, ledger.ErrAway):
			writeError(w, http.StatusServiceUnavailable, err.Error())
		case errors.Is(err, ErrNotTripped):
			writeError(w, http.StatusConflict, err.Error())
		case err != nil:
			writeError(w, http.StatusBadRequest, err.Error())
		default:
			writeJSON(w, http.StatusOK, released)
		}
	})
}

// writeJSON answers with a value that can always be encoded.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = text.WriteJSON(w, v) // the client may be gone
}

type policyJSON struct {
	Now          time.Time              `json:"now"`
	File         string                 `json:"file,omitempty"`
	Read         time.Time              `json:"read"`
	ReloadErrors []string               `json:"reload_errors,omitempty"`
	Floor        policy.Floor           `json:"floor"`
	Mode         policy.Mode            `json:"mode"`
	Listeners    map[string]policy.Mode `json:"listeners"` // now
	Rules        []ruleJSON             `json:"rules"`
	Candidates   []policy.Candidate     `json:"candidates"`
	NextChanges  []changeJSON           `json:"next_changes"`
	Warnings     []policy.Problem       `json:"warnings"`
	Guards       []policy.GuardState    `json:"guards"`
	// FirstRefused is when rules with a guard or a grace refused the client first.
	FirstRefused map[string]time.Time `json:"first_refused,omitempty"`
}

type ruleJSON struct {
	Name      string       `json:"name"`
	Mode      policy.Mode  `json:"mode"`
	Line      int          `json:"line"`
	InForce   bool         `json:"in_force"`
	ShareNow  float64      `json:"share_now"` // 0 to 1
	Match     policy.Match `json:"match,omitzero"`
	Share     *shareJSON   `json:"share,omitempty"`
	From      time.Time    `json:"from,omitzero"`
	Until     time.Time    `json:"until,omitzero"`
	Schedule  string       `json:"schedule,omitempty"`
	For       string       `json:"for,omitempty"`
	Timezone  string       `json:"timezone"`
	Owner     string       `json:"owner,omitempty"`
	Exemption bool         `json:"exemption"`
	// PassThrough: to the old server, also where Postern could serve.
	PassThrough bool   `json:"pass_through,omitempty"`
	Floor       string `json:"floor,omitempty"` // its own
	Grace       string `json:"grace,omitempty"`
}

type shareJSON struct {
	From float64 `json:"from"` // 0 to 1
	To   float64 `json:"to"`
	By   string  `json:"by"`
}

type changeJSON struct {
	policy.Change
	Listeners map[string]policy.Mode `json:"listeners"` // from then on
}

func policyView(s PolicyState) policyJSON {
	p, now := s.Policy, s.Now.UTC()
	snapshot := p.At(now)
	return policyJSON{
		Now: now, File: s.File, Read: s.Read.UTC(), ReloadErrors: s.Failed,
		Floor: p.Floor(), Mode: p.Mode(), Listeners: modes(&snapshot, s.Listeners),
		Rules: text.Each(p.Rules(), func(r *policy.Rule) ruleJSON { return ruleView(r, now) }),
		NextChanges: text.Each(p.Changes(now, now.Add(changesWithin), maxChanges), func(c policy.Change) changeJSON {
			return changeJSON{c, modes(&c.Now, s.Listeners)}
		}),
		Candidates: append([]policy.Candidate{}, p.Candidates()...), Guards: append([]policy.GuardState{}, p.Guards()...),
		Warnings: append([]policy.Problem{}, p.Warnings(now, s.Site)...),
	}
}

func modes(s *policy.Snapshot, listeners []string) map[string]policy.Mode {
	m := make(map[string]policy.Mode)
	for _, l := range listeners {
		m[l] = s.ModeFor(l)
	}
	return m
}

func ruleView(r *policy.Rule, now time.Time) ruleJSON {
	v := ruleJSON{
		Name: r.Name, Mode: r.Mode, Line: r.Line, InForce: r.InForce(now), ShareNow: rounded(r.ShareAt(now)),
		From: r.From, Until: r.Until, Timezone: r.Zone.String(), Owner: r.Owner, Exemption: r.Exemption(), Match: r.Match,
		PassThrough: r.PassThrough, Floor: r.OwnFloorName(), Grace: text.Either(r.Grace > 0, text.Duration(r.Grace), ""),
	}
	if r.Schedule != nil {
		v.Schedule, v.For = r.Schedule.Cron, r.Schedule.For.String()
	}
	if r.Share != nil {
		v.Share = &shareJSON{rounded(r.Share.From), rounded(r.Share.To), text.Either(r.Share.Connection, "connection", "client")}
	}
	return v
}

// rounded returns a share without rounding errors in its last digits.
func rounded(share float64) float64 { return math.Round(share*1e6) / 1e6 }
