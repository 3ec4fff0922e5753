package handover

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

var asking = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (r *run) ready() error {
	resp, err := asking.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", resp.Status)
	}
	return nil
}

// samples are the lines of /metrics.
type samples []string

func (r *run) metrics() (all samples, err error) {
	resp, err := asking.Get("http://" + r.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	return all, lines.Err()
}

// has tells whether there is a sample with that label.
func (all samples) has(name, label string) bool {
	return slices.ContainsFunc(all, func(line string) bool { return strings.HasPrefix(line, name+"{") && strings.Contains(line, label) })
}

// handshakes are the counters of handshakes that are not 0.
func (all samples) handshakes() map[kind]int {
	counts := make(map[kind]int)
	for _, line := range all {
		labels, value, _ := strings.Cut(line, "} ")
		labels, found := strings.CutPrefix(labels, "postern_handshakes_total{")
		if n, _ := strconv.ParseFloat(value, 64); found && n > 0 {
			var k kind
			for label := range strings.SplitSeq(labels, ",") {
				name, value, _ := strings.Cut(label, "=")
				value = strings.Trim(value, `"`)
				switch name {
				case "listener":
					k.listener = value
				case "version":
					k.version = value
				case "outcome":
					k.outcome = value
				}
			}
			counts[k] = int(n)
		}
	}
	return counts
}
