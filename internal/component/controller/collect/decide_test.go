package collect

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/gc"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// idleFor is a Revision that at noon has had no traffic for that long, made an hour before.
func idleFor(name string, idle time.Duration) *servingv1.Revision {
	return idleSince(name, noon.Add(-idle-time.Hour), noon.Add(-idle))
}

func idleSince(name string, made, idle time.Time) *servingv1.Revision {
	rev := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "shop", UID: "u", CreationTimestamp: metav1.NewTime(made),
		Labels: map[string]string{serving.ConfigurationLabelKey: "hello"},
	}}
	rev.SetRoutingState(servingv1.RoutingStateReserve, idle)
	return rev
}

// rules reads config-gc written as "key: value" lines.
func rules(t *testing.T, lines ...string) *gc.Config {
	t.Helper()
	m := &corev1.ConfigMap{Data: map[string]string{}}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ": ")
		m.Data[key] = value
	}
	c, err := gc.NewConfigFromConfigMapFunc(t.Context())(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// revisions are a (the latest ready) and b to f, the later in the alphabet the longer without traffic.
func revisions() []*servingv1.Revision {
	a := idleFor("a", 0)
	a.SetRoutingState(servingv1.RoutingStateActive, noon)
	return []*servingv1.Revision{
		idleFor("c", 20*time.Hour), a, idleFor("f", 50*time.Hour), idleFor("b", 10*time.Hour), idleFor("e", 40*time.Hour), idleFor("d", 30*time.Hour),
	}
}

func TestDecide(t *testing.T) {
	const (
		created, active = "retain-since-create-time: ", "retain-since-last-active-time: "
		least, most     = "min-non-active-revisions: ", "max-non-active-revisions: "
	)
	named := func(s *state, name string) *servingv1.Revision {
		for _, rev := range s.revisions {
			if rev.Name == name {
				return rev
			}
		}
		return nil
	}
	tests := map[string]struct {
		rules  []string
		change func(*state)
		want   string
		due    time.Duration
	}{
		"by default few are no trouble":          {nil, nil, "", 0},
		"older than both ages":                   {[]string{least + "0"}, nil, "f", 7 * time.Hour},
		"the age without traffic counts":         {[]string{least + "0", created + "disabled", active + "35h"}, nil, "f e", 5 * time.Hour},
		"the age since it was made counts":       {[]string{least + "0", created + "35h", active + "disabled"}, nil, "f e", 4 * time.Hour},
		"at that very moment":                    {[]string{least + "0", created + "disabled", active + "30h"}, nil, "f e d", 10 * time.Hour},
		"the minimum remains":                    {[]string{least + "3", created + "1h", active + "1h"}, nil, "f e", 0},
		"the maximum is kept":                    {[]string{least + "0", most + "2", created + "disabled", active + "disabled"}, nil, "f e d", 0},
		"beyond the maximum before they are old": {[]string{least + "0", most + "2", active + "45h"}, nil, "f e d", 27 * time.Hour},
		"all at once":                            {[]string{least + "0", most + "0", created + "disabled", active + "disabled"}, nil, "f e d c b", 0},
		"nothing when all is disabled":           {[]string{least + "0", most + "disabled", created + "disabled", active + "disabled"}, nil, "", 0},
		"one with traffic stays": {[]string{least + "0", most + "0"}, func(s *state) {
			named(s, "f").SetRoutingState(servingv1.RoutingStateActive, noon)
		}, "e d c b", 0},
		"one of which nothing is known stays": {[]string{least + "0", most + "0"}, func(s *state) {
			named(s, "f").SetRoutingState(servingv1.RoutingStatePending, noon)
		}, "e d c b", 0},
		"the latest ready stays, whatever its traffic": {[]string{least + "0", most + "0"}, func(s *state) {
			s.configuration.Status.LatestReadyRevisionName = "f"
		}, "e d c b", 0},
		"one that is to be kept stays": {[]string{least + "0", most + "0"}, func(s *state) {
			named(s, "f").Annotations[serving.RevisionPreservedAnnotationKey] = "True"
		}, "e d c b", 0},
		"one that is going does not count": {[]string{least + "3", most + "3"}, func(s *state) {
			named(s, "f").DeletionTimestamp = &metav1.Time{Time: noon}
		}, "e", 0},
		"without a note its making counts": {[]string{least + "0", most + "4"}, func(s *state) {
			rev := named(s, "b")
			rev.Annotations, rev.CreationTimestamp = nil, metav1.NewTime(noon.Add(-60*time.Hour))
		}, "b f", 7 * time.Hour},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := state{configuration: &servingv1.Configuration{}, revisions: revisions(), settings: rules(t, tt.rules...), now: noon}
			s.configuration.Status.LatestReadyRevisionName = "a"
			if tt.change != nil {
				tt.change(&s)
			}
			p := decide(s)
			var got []string
			for _, rev := range p.remove {
				got = append(got, rev.Name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("removes %v, want %s", got, tt.want)
			}
			due := time.Duration(0)
			if !p.due.IsZero() {
				due = p.due.Sub(noon)
			}
			if due != tt.due {
				t.Errorf("due in %s, want %s", due, tt.due)
			}
		})
	}
}
