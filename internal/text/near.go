package text

// Nearest returns the one of some names that a misspelt one probably means, or "".
// Up to a quarter of it may be wrong, and two characters in any case.
func Nearest(misspelt string, names []string) string {
	best, least := "", min(max(2, len(misspelt)/4)+1, len(misspelt))
	for _, name := range names {
		if d := distance(misspelt, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance returns the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
