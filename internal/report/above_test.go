package report

import (
	"testing"

	"postern/policy"
)

func TestTheCandidateThatKnowsBestIsAsked(t *testing.T) {
	candidates := []policy.Candidate{
		{Name: "pq", Floor: policy.FloorTLS13PQ, Remember: true}, {Name: "aead", Floor: policy.FloorTLS12AEAD, Remember: true},
		{Name: "tls13", Floor: policy.FloorTLS13, Remember: true}, {Name: "counted", Floor: policy.FloorTLS13PQ},
	}
	for _, tt := range []struct {
		next       string
		running    policy.Floor
		candidates []policy.Candidate
		want       string
	}{
		{"floor: tls1.3", policy.FloorTLS12, candidates, "tls13"},
		{"floor: tls1.2-aead", policy.FloorTLS12, candidates, "aead"},
		{"floor: tls1.3-pq", policy.FloorTLS12, candidates, "pq"},
		{"floor: tls1.3", policy.FloorTLS12, candidates[1:2], "aead"},
		{"floor: tls1.3", policy.FloorTLS12, candidates[:1], "pq"},
		{"floor: tls1.3", policy.FloorTLS12, candidates[3:], ""},
		{"floor: tls1.3", policy.FloorTLS13, candidates, ""},
		{"floor: tls1.2", policy.FloorTLS12, candidates, ""},
		{"floor: tls1.3-pq", policy.FloorTLS13, candidates[1:3], ""},
		{"rules: [{name: early, mode: enforce, floor: tls1.3}]", policy.FloorTLS12, candidates, "tls13"},
	} {
		p, err := policy.Parse([]byte(tt.next + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if c := (&Trial{Policy: p}).Above(tt.running, tt.candidates); c != nil {
			got = c.Name
		}
		if got != tt.want {
			t.Errorf("%s above %s: %q, want %q", tt.next, tt.running, got, tt.want)
		}
	}
}
