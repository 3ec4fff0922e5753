package ledger

import "fmt"

// noise tells whether the row is a client that no number is to hold: a fallback
// retry, one whose every handshake broke off, one that never could log in, or a
// scanner.
func (s *sighting) noise() bool {
	return s.reason == "fallback" || s.observed+s.explained+s.rejected == 0 ||
		s.loginOK == 0 && (s.loginFailed > 0 || s.scanner != 0)
}

// clients counts the rows that are no noise.
func (f Facts) clients() (n int) {
	for i := range f.Rows {
		if s := f.sighting(i); !s.noise() {
			n++
		}
	}
	return n
}

// expected are some of the figures, counted here.
func (f Facts) expected() figures {
	since := f.Since().Unix()
	clients, left, noise := 0, map[int64]bool{}, map[int64]bool{}
	for i := range f.Rows {
		s := f.sighting(i)
		quiet := s.noise()
		if !quiet {
			clients++
		}
		if s.last < since {
			continue
		}
		if quiet {
			noise[s.network] = true
		} else {
			left[s.network] = true
		}
	}
	for network := range left {
		delete(noise, network)
	}
	return figures{"total of limit=1": fmt.Sprint(clients), "total of limit=1&noise=include": fmt.Sprint(f.Rows),
		"report: totals.clients": fmt.Sprint(len(left)), "report: totals.noise": fmt.Sprint(len(noise))}
}

// differ says where two have different numbers of the same name, or where the
// first lacks one.
func (f figures) differ(other figures, names [2]string) (problems []string) {
	for name, b := range other {
		if a, ok := f[name]; a != b {
			if !ok {
				a = "nothing"
			}
			problems = append(problems, fmt.Sprintf("%s: %s says %s, %s says %s", name, names[0], a, names[1], b))
		}
	}
	return problems
}
