package readiness_test

import (
	"testing"

	"ebb.dev/ebb/internal/domain/render/readiness"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	containers := map[string]readiness.Extra{
		"eager": {Aggressive: true}, "command": {Port: 8080}, "plain": {}, "detecting": {Aggressive: true, HTTP2: true},
	}
	value, err := readiness.Encode(containers)
	if err != nil {
		t.Fatal(err)
	}
	annotations := map[string]string{readiness.Annotation: value}
	for name, want := range containers {
		if got := readiness.Of(annotations, name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if got := readiness.Of(annotations, "stranger"); got != (readiness.Extra{}) {
		t.Errorf("a container that is not named: %+v", got)
	}
}

func TestNothingAskedIsNoAnnotation(t *testing.T) {
	if value, err := readiness.Encode(map[string]readiness.Extra{"plain": {}}); value != "" || err != nil {
		t.Errorf("value %q, error %v", value, err)
	}
	for what, annotations := range map[string]map[string]string{
		"no annotations": nil, "no JSON": {readiness.Annotation: "soon"}, "another shape": {readiness.Annotation: "[1]"},
	} {
		if got := readiness.Of(annotations, "any"); got != (readiness.Extra{}) {
			t.Errorf("%s: %+v", what, got)
		}
	}
}
