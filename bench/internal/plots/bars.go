package plots

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is horizontal bars in groups, one under the other.
type chart struct {
	title, axis string
	format      string
	// log draws bars from 1 on a logarithmic axis, to the left and to the right;
	// otherwise they begin at 0.
	log    bool
	groups []group
}

// group is bars under a heading.
type group struct {
	heading string
	bars    []bar
}

// bar is one value; ours stands out.
type bar struct {
	name  string
	value float64
	ours  bool
}

var (
	black    = color.RGBA{0x1f, 0x23, 0x28, 0xff}
	grey     = color.RGBA{0x9a, 0xa8, 0xb8, 0xff}
	pale     = color.RGBA{0xdd, 0xe2, 0xe8, 0xff}
	strong   = color.RGBA{0xc4, 0x4e, 0x10, 0xff}
	sansBold = font.Font{Typeface: "Liberation", Variant: "Sans", Weight: 2}
)

const (
	width     = 20 * vg.Centimeter
	rowHeight = 11 // points
	textSize  = vg.Length(8)
)

// svg draws the chart.
func (c chart) svg() ([]byte, error) {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = c.title
	p.Title.TextStyle.Font = sansBold
	p.Title.TextStyle.Font.Size = 11
	p.Title.Padding = 8
	p.X.Label.Text = c.axis
	for _, style := range []*draw.TextStyle{&p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: textSize}
		style.Color = black
	}
	p.X.Tick.Label.Font.Size = textSize
	p.Title.TextStyle.Color = black
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width, p.Y.Tick.Length = 0, 0, 0
	p.X.LineStyle.Color, p.X.Tick.LineStyle.Color = grey, grey

	names, rows := c.rows()
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Min, p.Y.Max = -rows+0.3, 0.7
	c.scale(p)
	p.Add(c)

	height := vg.Length(rows*rowHeight + 75)
	canvas := vgsvg.New(width, height)
	dc := draw.New(canvas)
	dc.FillPolygon(color.White, []vg.Point{{}, {X: width}, {X: width, Y: height}, {Y: height}}) // on dark pages too
	p.Draw(draw.Crop(dc, 6, -10, 6, -6))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("drawing %s: %w", c.title, err)
	}
	return []byte(fonts.Replace(out.String())), nil
}

// fonts names what a reader without the Liberation fonts has.
var fonts = strings.NewReplacer(
	"font-family:Liberation Sans;", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")

// gap is between groups, in rows.
const gap = 0.5

// rows are the names of the bars by their height, which goes down from 0, and
// how many rows there are, with those of the headings.
func (c chart) rows() (names []plot.Tick, rows float64) {
	for _, g := range c.groups {
		rows++
		for _, b := range g.bars {
			names = append(names, plot.Tick{Value: -rows, Label: b.name})
			rows++
		}
		rows += gap
	}
	return names, rows - gap
}

// scale sets the horizontal axis.
func (c chart) scale(p *plot.Plot) {
	most, least := 0.0, math.Inf(1)
	for _, g := range c.groups {
		for _, b := range g.bars {
			most, least = max(most, b.value), min(least, b.value)
		}
	}
	if !c.log {
		p.X.Min, p.X.Max = 0, max(most*1.08, 1)
		return
	}
	low := math.Pow(2, math.Floor(math.Log2(min(least, 1)*0.85)))
	high := math.Pow(2, math.Ceil(math.Log2(max(most, 1)*1.15)))
	p.X.Scale, p.X.Min, p.X.Max = plot.LogScale{}, low, high
	var ticks []plot.Tick
	for v := low; v <= high; v *= 2 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
}

// Plot draws the bars, their values and the headings; it makes chart a
// plot.Plotter.
func (c chart) Plot(dc draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&dc)
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if t.Label != "" && t.Value >= p.X.Min && t.Value <= p.X.Max {
			dc.StrokeLine2(draw.LineStyle{Color: pale, Width: 0.5}, x(t.Value), dc.Min.Y, x(t.Value), dc.Max.Y)
		}
	}
	zero := 0.0
	if c.log {
		zero = 1
	}
	heading := p.Y.Tick.Label
	heading.Font = sansBold
	heading.Font.Size, heading.XAlign, heading.YAlign = textSize, draw.XLeft, draw.YCenter
	value := p.Y.Tick.Label
	value.Font.Size, value.YAlign = textSize-1, draw.YCenter
	row := 0.0
	for _, g := range c.groups {
		dc.FillText(heading, vg.Point{X: dc.Min.X + 2, Y: y(-row)}, g.heading)
		row++
		for _, b := range g.bars {
			at := y(-row)
			row++
			fill := grey
			if b.ours {
				fill = strong
			}
			half := vg.Length(rowHeight) * 0.36
			from, to := x(zero), x(b.value)
			dc.FillPolygon(fill, []vg.Point{{X: from, Y: at - half}, {X: to, Y: at - half}, {X: to, Y: at + half}, {X: from, Y: at + half}})
			value.XAlign = draw.XLeft
			label := vg.Point{X: to + 3, Y: at}
			if to < from {
				value.XAlign, label.X = draw.XRight, to-3
			}
			dc.FillText(value, label, fmt.Sprintf(c.format, b.value))
		}
		if c.log { // not through the headings
			first, last := y(-row+float64(len(g.bars))+0.5), y(-row+0.5)
			dc.StrokeLine2(draw.LineStyle{Color: black, Width: 0.8}, x(1), first, x(1), last)
		}
		row += gap
	}
}
