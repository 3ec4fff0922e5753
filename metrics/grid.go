package metrics

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// grid is one number for each combination of label values that are known from
// the start: counters, or gauges of whole numbers. A series takes eight bytes
// where a prometheus.Counter takes half a kilobyte, and a gate has some thousand
// of them, most of which stay at zero.
type grid struct {
	desc  *prometheus.Desc
	gauge bool
	born  *timestamppb.Timestamp
	// pairs are the values of each label; all series share them.
	pairs [][]*dto.LabelPair
	// byName is the order of the labels by name, as Prometheus wants them.
	byName []int
	values []atomic.Int64
}

// label is a label and its values.
type label struct {
	name   string
	values []string
}

// names are values of a label.
func names[T ~string](list []T) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = string(v)
	}
	return all
}

// texts are values of a label that have one in String.
func texts[T interface{ String() string }](list []T) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = v.String()
	}
	return all
}

func newGrid(name, help string, labels []label) *grid {
	g := &grid{born: timestamppb.Now()}
	n := 1
	var keys []string
	for i, l := range labels {
		keys = append(keys, l.name)
		g.byName = append(g.byName, i)
		var pairs []*dto.LabelPair
		for _, v := range l.values {
			pairs = append(pairs, &dto.LabelPair{Name: &l.name, Value: &v})
		}
		g.pairs = append(g.pairs, pairs)
		n *= len(l.values)
	}
	slices.SortFunc(g.byName, func(a, b int) int { return strings.Compare(keys[a], keys[b]) })
	g.values = make([]atomic.Int64, n)
	g.desc = prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, keys, nil)
	return g
}

// at is the number at an index of each label's values, in the order of the
// labels; nil where one is in no set: an event never breaks a connection.
func (g *grid) at(indices ...int) *atomic.Int64 {
	n := 0
	for i, index := range indices {
		if index < 0 {
			return nil
		}
		n = n*len(g.pairs[i]) + index
	}
	return &g.values[n]
}

// add adds to the number at these indices, if there is one.
func (g *grid) add(n int, indices ...int) {
	if v := g.at(indices...); v != nil {
		v.Add(int64(n))
	}
}

// Describe implements [prometheus.Collector].
func (g *grid) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements [prometheus.Collector].
func (g *grid) Collect(ch chan<- prometheus.Metric) {
	for i := range g.values {
		ch <- point{g, i}
	}
}

// point is one series of a grid.
type point struct {
	*grid
	index int
}

func (p point) Desc() *prometheus.Desc { return p.desc }

// Write implements [prometheus.Metric].
func (p point) Write(m *dto.Metric) error {
	m.Label = make([]*dto.LabelPair, len(p.pairs))
	rest := p.index
	for i, pairs := range slices.Backward(p.pairs) {
		m.Label[slices.Index(p.byName, i)] = pairs[rest%len(pairs)]
		rest /= len(pairs)
	}
	value := float64(p.values[p.index].Load())
	if p.gauge {
		m.Gauge = &dto.Gauge{Value: &value}
	} else {
		m.Counter = &dto.Counter{Value: &value, CreatedTimestamp: p.born}
	}
	return nil
}
