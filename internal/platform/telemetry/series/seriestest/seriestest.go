// Package seriestest reads a group's numbers in tests.
package seriestest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// Read collects once and returns every number by "name{key=value,…}", a histogram as its count.
func Read(t testing.TB, g *series.Group) map[string]float64 {
	t.Helper()
	scopes, err := g.Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	put := func(m metricdata.Metrics, attrs attribute.Set, value float64) {
		key := Name(m.Name, attrs.ToSlice()...)
		if _, twice := out[key]; twice {
			t.Errorf("%s is told twice", key)
		}
		out[key] = value
	}
	for _, scope := range scopes {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				points(data.DataPoints, func(a attribute.Set, v float64) { put(m, a, v) })
			case metricdata.Gauge[float64]:
				points(data.DataPoints, func(a attribute.Set, v float64) { put(m, a, v) })
			case metricdata.Sum[int64]:
				points(data.DataPoints, func(a attribute.Set, v float64) { put(m, a, v) })
			case metricdata.Sum[float64]:
				points(data.DataPoints, func(a attribute.Set, v float64) { put(m, a, v) })
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					put(m, p.Attributes, float64(p.Count))
				}
			default:
				t.Errorf("%s is a %T", m.Name, m.Data)
			}
		}
	}
	return out
}

func points[N int64 | float64](points []metricdata.DataPoint[N], put func(attribute.Set, float64)) {
	for _, p := range points {
		put(p.Attributes, float64(p.Value))
	}
}

// Name is how Read calls a number.
func Name(metric string, attrs ...attribute.KeyValue) string {
	var words []string
	for _, a := range attrs {
		words = append(words, fmt.Sprintf("%s=%s", a.Key, a.Value.Emit()))
	}
	slices.Sort(words)
	return metric + "{" + strings.Join(words, ",") + "}"
}
