package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// grid holds one number for each combination of label values that are known from
// the start: counters, whose names end in _total, or integer gauges. A series
// takes eight bytes instead of half a kilobyte of a prometheus.Counter, and most
// of some thousand stay at zero.
type grid struct {
	desc  *prometheus.Desc
	gauge bool
	born  *timestamppb.Timestamp
	// pairs are the values of each label; all series share them.
	pairs  [][]*dto.LabelPair
	values []atomic.Int64
	// rare: series with the last value of this label appear once they have counted.
	rare string
}

// label is a label and its values.
type label struct {
	name   string
	values []string
}

// values are those of a label, as text.
func values[T any](list []T) []string {
	all := make([]string, len(list))
	for i, v := range list {
		all[i] = fmt.Sprint(v)
	}
	return all
}

func (f factory) grid(name, help string, labels ...label) *grid {
	g := &grid{born: timestamppb.Now(), gauge: !strings.HasSuffix(name, "_total")}
	n := 1
	var keys []string
	for _, l := range labels {
		keys = append(keys, l.name)
		var pairs []*dto.LabelPair
		for _, v := range l.values {
			pairs = append(pairs, &dto.LabelPair{Name: &l.name, Value: new(utf8Label(v))})
		}
		g.pairs = append(g.pairs, pairs)
		n *= len(l.values)
	}
	g.values = make([]atomic.Int64, n)
	g.desc = prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, keys, nil)
	f.r.MustRegister(g)
	return g
}

// index returns the place of a series, given the index of each label's value in
// the order of the labels; -1 if a value is unknown, as an event must never break
// a connection.
func (g *grid) index(indices ...int) int {
	n := 0
	for i, index := range indices {
		if index < 0 || index >= len(g.pairs[i]) {
			return -1
		}
		n = n*len(g.pairs[i]) + index
	}
	return n
}

// find is index for the values themselves.
func (g *grid) find(values ...string) int {
	indices := make([]int, len(values))
	for i, v := range values {
		indices[i] = slices.IndexFunc(g.pairs[i], func(p *dto.LabelPair) bool { return p.GetValue() == v })
	}
	return g.index(indices...)
}

// add adds to the number at these indices, if there is one.
func (g *grid) add(n int, indices ...int) {
	if i := g.index(indices...); i >= 0 {
		g.values[i].Add(int64(n))
	}
}

// Describe implements [prometheus.Collector].
func (g *grid) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements [prometheus.Collector].
func (g *grid) Collect(ch chan<- prometheus.Metric) {
	for i := range g.values {
		if g.values[i].Load() != 0 || !g.isRare(i) {
			ch <- point{g, i}
		}
	}
}

func (g *grid) withRare(l label) *grid {
	g.rare = l.name
	return g
}

func (g *grid) isRare(i int) bool {
	for _, pairs := range slices.Backward(g.pairs) {
		if last := len(pairs) - 1; i%len(pairs) == last && *pairs[last].Name == g.rare {
			return true
		}
		i /= len(pairs)
	}
	return false
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
		m.Label[i] = pairs[rest%len(pairs)]
		rest /= len(pairs)
	}
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(*a.Name, *b.Name) })
	value := float64(p.values[p.index].Load())
	if p.gauge {
		m.Gauge = &dto.Gauge{Value: &value}
	} else {
		m.Counter = &dto.Counter{Value: &value, CreatedTimestamp: p.born}
	}
	return nil
}
