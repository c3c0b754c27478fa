// Package series holds numbers with attributes in OpenTelemetry's model, for readers that ask now and
// then: exporters and scrapers.
//
// The SDK's own instruments look attributes up at each measurement and never forget a set of them.
// Here who measures keeps the number itself, so that measuring is an atomic addition; and what exists
// is told anew at each collection, so that the series of a deleted revision are gone by themselves.
package series

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Kind says how an instrument's numbers behave.
type Kind uint8

// The kinds of instruments.
const (
	// Gauge is a value at one moment.
	Gauge Kind = iota
	// UpDown is a sum that may fall, so that adding it up over series means something.
	UpDown
	// Counter is a sum that only grows.
	Counter
)

// Instrument describes one metric; histograms leave Kind out.
type Instrument struct {
	Name, Description, Unit string
	Kind                    Kind
}

// A Source tells all its numbers to a Batch.
type Source func(*Batch)

// Group is a set of sources that is exported together. Its zero value is ready; its methods may be
// called from many goroutines.
type Group struct {
	mu      sync.Mutex // guards sources
	sources []source
}

type source struct {
	scope string
	tell  Source
	begun time.Time
}

var _ metric.Producer = (*Group)(nil)

// Add has a source asked at each collection; scope names who measures.
func (g *Group) Add(scope string, s Source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sources = append(slices.Clip(g.sources), source{scope, s, time.Now()})
}

// Produce implements metric.Producer.
func (g *Group) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	g.mu.Lock()
	sources := g.sources
	g.mu.Unlock()
	out := make([]metricdata.ScopeMetrics, 0, len(sources))
	for _, s := range sources {
		b := &Batch{begun: s.begun, now: time.Now(), at: map[*Instrument]int{}}
		s.tell(b)
		if len(b.metrics) > 0 {
			out = append(out, metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: s.scope}, Metrics: b.metrics})
		}
	}
	return out, nil
}

// With returns a set that also has more attributes.
func With(attrs attribute.Set, more ...attribute.KeyValue) attribute.Set {
	return attribute.NewSet(append(attrs.ToSlice(), more...)...)
}

// Batch takes the numbers of one collection.
type Batch struct {
	begun, now time.Time
	metrics    []metricdata.Metrics
	at         map[*Instrument]int // in metrics
}

// slot is where an instrument's points are gathered.
func (b *Batch) slot(i *Instrument, empty metricdata.Aggregation) *metricdata.Aggregation {
	n, known := b.at[i]
	if !known {
		n = len(b.metrics)
		b.at[i] = n
		b.metrics = append(b.metrics, metricdata.Metrics{Name: i.Name, Description: i.Description, Unit: i.Unit, Data: empty})
	}
	return &b.metrics[n].Data
}

// Int tells a whole number.
func (b *Batch) Int(i *Instrument, attrs attribute.Set, value int64) { number(b, i, attrs, value) }

// Float tells any number.
func (b *Batch) Float(i *Instrument, attrs attribute.Set, value float64) {
	number(b, i, attrs, value)
}

func number[N int64 | float64](b *Batch, i *Instrument, attrs attribute.Set, value N) {
	point := metricdata.DataPoint[N]{Attributes: attrs, Time: b.now, Value: value}
	if i.Kind == Gauge {
		data := b.slot(i, metricdata.Gauge[N]{})
		g, _ := (*data).(metricdata.Gauge[N]) // what slot made
		g.DataPoints = append(g.DataPoints, point)
		*data = g
		return
	}
	point.StartTime = b.begun
	data := b.slot(i, metricdata.Sum[N]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: i.Kind == Counter})
	s, _ := (*data).(metricdata.Sum[N]) // what slot made
	s.DataPoints = append(s.DataPoints, point)
	*data = s
}

// Histogram tells a distribution.
func (b *Batch) Histogram(i *Instrument, attrs attribute.Set, h *Histogram) {
	data := b.slot(i, metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality})
	all, _ := (*data).(metricdata.Histogram[float64]) // what slot made
	point := h.point()
	point.Attributes, point.StartTime, point.Time = attrs, b.begun, b.now
	all.DataPoints = append(all.DataPoints, point)
	*data = all
}
