package posterntest

import (
	"fmt"
	"io"
	"math"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Samples is one scrape of /metrics. A histogram or summary appears as its
// _count and _sum.
type Samples map[string][]Sample

// Sample is one series of a scrape.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// ParseSamples reads the Prometheus text format.
func ParseSamples(r io.Reader) (Samples, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("parsing metrics: %w", err)
	}
	s := make(Samples)
	for name, family := range families {
		for _, m := range family.GetMetric() {
			s.add(name, m)
		}
	}
	return s, nil
}

func (s Samples) add(name string, m *dto.Metric) {
	labels := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	put := func(name string, v float64) {
		s[name] = append(s[name], Sample{Labels: labels, Value: v})
	}
	switch {
	case m.GetCounter() != nil:
		put(name, m.GetCounter().GetValue())
	case m.GetGauge() != nil:
		put(name, m.GetGauge().GetValue())
	case m.GetHistogram() != nil:
		put(name+"_count", float64(m.GetHistogram().GetSampleCount()))
		put(name+"_sum", m.GetHistogram().GetSampleSum())
	case m.GetSummary() != nil:
		put(name+"_count", float64(m.GetSummary().GetSampleCount()))
		put(name+"_sum", m.GetSummary().GetSampleSum())
	default:
		put(name, m.GetUntyped().GetValue())
	}
}

// Matching returns the series of a metric whose labels hold all the given
// "key=value" pairs.
func (s Samples) Matching(name string, labels ...string) []Sample {
	var found []Sample
	for _, sample := range s[name] {
		if sample.has(labels) {
			found = append(found, sample)
		}
	}
	return found
}

func (s Sample) has(labels []string) bool {
	for _, l := range labels {
		key, want, _ := strings.Cut(l, "=")
		if got, ok := s.Labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// Has tells whether any series matches.
func (s Samples) Has(name string, labels ...string) bool {
	return len(s.Matching(name, labels...)) > 0
}

// Value is the sum over all series that match, NaN where there are none.
func (s Samples) Value(name string, labels ...string) float64 {
	found := s.Matching(name, labels...)
	if len(found) == 0 {
		return math.NaN()
	}
	var sum float64
	for _, sample := range found {
		sum += sample.Value
	}
	return sum
}

// Count is Value with a missing series taken as zero.
func (s Samples) Count(name string, labels ...string) float64 {
	if v := s.Value(name, labels...); !math.IsNaN(v) {
		return v
	}
	return 0
}
