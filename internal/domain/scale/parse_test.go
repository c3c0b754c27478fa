package scale_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/scale"
)

func TestParse(t *testing.T) {
	standard := scale.Spec{
		Class: scale.KPA, Metric: scale.Concurrency, Aggregation: scale.Linear,
		Target: 70, Total: 100, StableWindow: time.Minute, PanicWindow: 6 * time.Second,
		PanicThreshold: 2, MaxScaleUpRate: 1000, MaxScaleDownRate: 2, TargetBurstCapacity: 211,
		Initial: 1, ScaleToZero: true, Grace: 30 * time.Second,
		ActivationTimeout: 630 * time.Second, Reachable: true,
	}
	with := func(change func(*scale.Spec)) scale.Spec {
		s := standard
		change(&s)
		return s
	}
	cases := map[string]struct {
		annotations map[string]string
		concurrency int64
		want        scale.Spec
	}{
		"nothing said": {want: standard},
		"kebab case wins over camel case": {
			annotations: map[string]string{"min-scale": "2", "minScale": "3", "maxScale": "9"},
			want:        with(func(s *scale.Spec) { s.Min, s.Max = 2, 9 }),
		},
		"container concurrency bounds the target": {
			annotations: map[string]string{"target": "50"}, concurrency: 10,
			want: with(func(s *scale.Spec) { s.Target, s.Total = 7, 10 }),
		},
		"requests a second": {
			annotations: map[string]string{"metric": "rps", "target": "50"}, concurrency: 10,
			want: with(func(s *scale.Spec) { s.Metric, s.Target, s.Total = scale.RPS, 35, 50 }),
		},
		"a short window has a panic window of a second": {
			annotations: map[string]string{"window": "6s", "panic-window-percentage": "1"},
			want:        with(func(s *scale.Spec) { s.StableWindow, s.PanicWindow = 6*time.Second, time.Second }),
		},
		"zero initial scale needs permission": {
			annotations: map[string]string{"initial-scale": "0"}, want: standard,
		},
		"weighted aggregation, old spelling": {
			annotations: map[string]string{"metric-aggregation-algorithm": "weightedExponential"},
			want:        with(func(s *scale.Spec) { s.Aggregation = scale.WeightedExponential }),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{}
			for k, v := range c.annotations {
				annotations["autoscaling.knative.dev/"+k] = v
			}
			got, err := scale.Parse(annotations, c.concurrency, scale.Standard())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Parse() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseNamesTheAnnotation(t *testing.T) {
	const key = "autoscaling.knative.dev/max-scale"
	got, err := scale.Parse(map[string]string{key: "many"}, 0, scale.Standard())
	if err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("error %v does not name %s", err, key)
	}
	if got.Max != 0 || got.Target != 70 {
		t.Errorf("the default does not stand in: %+v", got)
	}
}
