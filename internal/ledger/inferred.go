package ledger

import "strings"

// speaksLike returns what adds to a condition the sightings s that speak in one of some
// patterns at their listener, with its arguments. As in Client.addLogins, one that another
// pattern of the client goes on from says nothing.
func speaksLike(patterns []string) (condition string, args []any) {
	if len(patterns) == 0 {
		return "", nil
	}
	for _, p := range patterns {
		args = append(args, storable(asPattern+p))
	}
	return ` OR s.id IN (SELECT t.id FROM accounts a CROSS JOIN sightings t WHERE a.folded = '' AND t.owner = a.owner
		AND a.software IN (` + strings.Repeat(", $%d", len(patterns))[2:] + `) AND substr(a.software, 2, length(t.listener) + 1) = t.listener || ' '
		AND (a.account <> '' OR NOT EXISTS (SELECT 1 FROM accounts b
			WHERE b.owner = a.owner AND substr(b.software, 1, length(a.software) + 1) = a.software || ' ')))`, args
}
