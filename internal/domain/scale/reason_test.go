package scale_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/scale"
)

func TestMessages(t *testing.T) {
	type moment struct {
		second   float64
		load     float64 // recorded
		ready    int
		replicas int32
	}
	cases := map[string]struct {
		concurrency int64
		annotations map[string]string
		instances   int32
		moments     []moment
		want        string
	}{
		"demand": {
			moments: []moment{{0, 140, 2, 2}},
			want:    "140 requests in flight over 1m (140 over 6s) at 70 an instance: 2 instances.",
		},
		"requests a second": {
			annotations: map[string]string{"metric": "rps"},
			moments:     []moment{{0, 3.14159, 1, 1}},
			want:        "3.14 requests a second over 1m (3.14 over 6s) at 140 an instance: 1 instance.",
		},
		"a burst": {
			moments: []moment{{0, 10, 1, 1}, {50, 10, 1, 1}, {56, 10, 1, 1}, {58, 2000, 1, 1}},
			want:    "34.4 requests in flight over 1m (670 over 6s) at 70 an instance mean a burst: 10 instances.",
		},
		"after a burst": {
			moments: []moment{{0, 700, 1, 1}, {30, 0, 10, 10}},
			want:    "22.6 requests in flight over 1m (0 over 6s) at 70 an instance ask for less, but after a burst nothing shrinks for 1m: 10 instances.",
		},
		"one step down": {
			moments: []moment{{0, 0, 9, 9}},
			want:    "0 requests in flight over 1m (0 over 6s) at 70 an instance ask for less than one step down from 9 ready allows: 4 instances.",
		},
		"the activation scale": {
			annotations: map[string]string{"activation-scale": "3"},
			moments:     []moment{{0, 1, 0, 0}},
			want:        "1 requests in flight over 1m (1 over 6s) at 70 an instance start the activation scale: 3 instances.",
		},
		"the minimum": {annotations: map[string]string{"min-scale": "2"}, moments: []moment{{0, 1, 2, 2}}, want: "Demand asks for 1; the minimum scale is 2."},
		"the maximum": {annotations: map[string]string{"max-scale": "2"}, moments: []moment{{0, 500, 2, 2}}, want: "Demand asks for 8; the maximum scale is 2."},
		"a last one": {
			annotations: map[string]string{"window": "6s"},
			moments:     []moment{{0, 1, 0, 0}, {5, 0, 1, 1}, {9, 0, 1, 1}},
			want:        "No requests; one instance stays until the revision has been active for 6s.",
		},
		"long nothing":  {moments: []moment{{0, 0, 0, 0}}, want: "No requests for 1m."},
		"a fresh start": {instances: scale.Unknown, annotations: map[string]string{"initial-scale": "3"}, moments: []moment{{0, 0, 0, 0}}, want: "A new revision starts with 3 instances."},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sp := spec(t, c.concurrency, c.annotations, func(s *scale.Spec) { s.Initialized = c.instances != scale.Unknown })
			s := scale.NewState(sp, c.instances, t0)
			var d scale.Decision
			for _, m := range c.moments {
				s.Record(sec(m.second), m.load)
				d = s.Decide(scale.Observation{
					Now: sec(m.second), Ready: m.ready, Replicas: m.replicas, BufferedFor: always,
				})
			}
			if diff := cmp.Diff(c.want, d.Message()); diff != "" {
				t.Errorf("Message() (-want +got):\n%s", diff)
			}
		})
	}
}
