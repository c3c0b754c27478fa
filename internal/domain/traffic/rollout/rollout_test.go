package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/traffic/rollout"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// goal is a configuration of which one revision has all.
func goal(percent int, revision string) rollout.Configuration {
	return rollout.Configuration{Name: "hello", Percent: percent, Revisions: []rollout.Revision{{Name: revision, Percent: percent}}}
}

// shares writes the main host's parts: "a 99, b 1".
func shares(r rollout.Rollout) string {
	out := ""
	if c := r.Of("", "hello"); c != nil {
		for i, rev := range c.Revisions {
			if i > 0 {
				out += ", "
			}
			out += fmt.Sprintf("%s %d", rev.Name, rev.Percent)
		}
	}
	return out
}

// TestARolloutOfAMinute follows one from the first percent to the last: the first split was in force
// within a second, so 59 steps are left for 99 %, of 2 % each.
func TestARolloutOfAMinute(t *testing.T) {
	goals := rollout.New([]rollout.Configuration{goal(100, "b")})
	r := goals.Step(rollout.New([]rollout.Configuration{goal(100, "a")}), noon)
	if got := shares(r); got != "a 99, b 1" || !r.Due().IsZero() {
		t.Fatalf("begins with %s, due %s", got, r.Due())
	}
	now := noon.Add(20 * time.Millisecond)
	if r = goals.Step(r, now); shares(r) != "a 99, b 1" {
		t.Fatalf("moves before the split is in force: %s", shares(r))
	}
	r = r.Observe(now, time.Minute)
	steps := 0
	for !r.Done() {
		if steps++; steps > 100 {
			t.Fatalf("no end: %s", r)
		}
		early := goals.Step(r, r.Due().Add(-time.Millisecond))
		if diff := cmp.Diff(r, early); diff != "" {
			t.Fatalf("moves before it is due:\n%s", diff)
		}
		now = r.Due()
		r = goals.Step(r, now)
	}
	if took := now.Sub(noon); shares(r) != "b 100" || steps != 50 || took < 50*time.Second || took > time.Minute {
		t.Errorf("%d steps and %s until %s", steps, took, shares(r))
	}
	if c := r.Of("", "hello"); c.Steps != (rollout.Steps{}) {
		t.Errorf("steps are left: %+v", c.Steps)
	}
}

func TestStep(t *testing.T) {
	rolling := func(size int, revisions ...rollout.Revision) rollout.Rollout {
		c := rollout.Configuration{Name: "hello", Revisions: revisions}
		for _, r := range revisions {
			c.Percent += r.Percent
		}
		if size > 0 {
			c.Steps = rollout.Steps{Start: 1, Next: noon.UnixNano(), Every: int64(time.Second), Size: size}
		}
		return rollout.Rollout{Configurations: []rollout.Configuration{c}}
	}
	type revs = []rollout.Revision
	tests := map[string]struct {
		before rollout.Rollout
		goal   rollout.Configuration
		want   string
	}{
		"nothing was there":                          {rollout.Rollout{}, goal(100, "a"), "a 100"},
		"nothing new":                                {rolling(0, revs{{Name: "a", Percent: 100}}...), goal(100, "a"), "a 100"},
		"a new revision gets 1 %":                    {rolling(0, revs{{Name: "a", Percent: 100}}...), goal(100, "b"), "a 99, b 1"},
		"of a share of 1 % there is nothing to roll": {rolling(0, revs{{Name: "a", Percent: 1}}...), goal(1, "b"), "b 1"},
		"a step is due":                              {rolling(10, revs{{Name: "a", Percent: 60}, {Name: "b", Percent: 40}}...), goal(100, "b"), "a 50, b 50"},
		"the last step":                              {rolling(30, revs{{Name: "a", Percent: 30}, {Name: "b", Percent: 70}}...), goal(100, "b"), "b 100"},
		"a newer one takes from the youngest": {
			rolling(10, revs{{Name: "a", Percent: 60}, {Name: "b", Percent: 40}}...), goal(100, "c"), "a 60, b 39, c 1",
		},
		"the youngest of the older drains first": {
			rolling(10, revs{{Name: "a", Percent: 60}, {Name: "b", Percent: 35}, {Name: "c", Percent: 5}}...), goal(100, "c"), "a 60, b 25, c 15",
		},
		"then the one before it": {
			rolling(10, revs{{Name: "a", Percent: 60}, {Name: "b", Percent: 5}, {Name: "c", Percent: 35}}...), goal(100, "c"), "a 55, c 45",
		},
		"a bigger share goes to the newest": {
			rolling(10, revs{{Name: "a", Percent: 40}, {Name: "b", Percent: 10}}...), goal(80, "b"), "a 30, b 50",
		},
		"a smaller share is taken from the oldest": {
			rolling(5, revs{{Name: "a", Percent: 60}, {Name: "b", Percent: 40}}...), goal(70, "b"), "a 25, b 45",
		},
		"a share so small that the oldest leaves": {
			rolling(5, revs{{Name: "a", Percent: 40}, {Name: "b", Percent: 60}}...), goal(50, "b"), "b 50",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			was := tt.before.String()
			r := rollout.New([]rollout.Configuration{tt.goal}).Step(tt.before, noon)
			if got := shares(r); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if tt.before.String() != was {
				t.Error("what was before is changed")
			}
		})
	}
}

func TestSlowFirstStep(t *testing.T) {
	r := rollout.New([]rollout.Configuration{goal(100, "b")}).Step(rollout.New([]rollout.Configuration{goal(100, "a")}), noon)
	tests := map[string]struct {
		took, duration time.Duration
		want           rollout.Steps
	}{
		"as long as the first took":        {20 * time.Second, 100 * time.Second, rollout.Steps{Every: int64(20 * time.Second), Size: 25}},
		"never less than 1 % a step":       {time.Second, 1000 * time.Second, rollout.Steps{Every: int64(10090909090), Size: 1}},
		"at once when there is no time":    {time.Minute, 30 * time.Second, rollout.Steps{Every: int64(time.Second), Size: 99}},
		"a fraction of a second is one":    {time.Millisecond, 3 * time.Second, rollout.Steps{Every: int64(time.Second), Size: 50}},
		"durations count in whole seconds": {time.Millisecond, 3*time.Second + 900*time.Millisecond, rollout.Steps{Every: int64(time.Second), Size: 50}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			now := noon.Add(tt.took)
			got := r.Observe(now, tt.duration).Of("", "hello").Steps
			if got.Every != tt.want.Every || got.Size != tt.want.Size || time.Unix(0, got.Next).Sub(now.Add(time.Duration(got.Every))).Abs() > time.Microsecond {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	tests := map[string]bool{
		"":   false,
		"{}": false,
		"no": false,
		`{"configurations":[{"configurationName":"hello","percent":100,"revisions":[{"revisionName":"a","percent":100}],"stepParams":{}}]}`:          true,
		`{"configurations":[{"configurationName":"hello","percent":100,"revisions":[{"revisionName":"a","percent":90}],"stepParams":{}}]}`:           false,
		`{"configurations":[{"configurationName":"hello","percent":101,"revisions":[{"revisionName":"a","percent":101}],"stepParams":{}}]}`:          false,
		`{"configurations":[{"configurationName":"hello","percent":9,"revisions":[{"revisionName":"a","percent":9}],"stepParams":{"stepSize":10}}]}`: false,
	}
	for text, want := range tests {
		r, ok := rollout.Parse(text)
		if ok != want {
			t.Errorf("%s is taken: %v", text, ok)
		}
		if ok && r.String() != text {
			t.Errorf("%s is written as %s", text, r)
		}
	}
}

func TestWithoutGivesToTheNewest(t *testing.T) {
	r := rollout.Rollout{Configurations: []rollout.Configuration{{
		Name: "hello", Percent: 100, Steps: rollout.Steps{Start: 1},
		Revisions: []rollout.Revision{{Name: "a", Percent: 50}, {Name: "b", Percent: 40}, {Name: "c", Percent: 10}},
	}}}
	for gone, want := range map[string]string{"a": "b 40, c 60", "b": "a 50, c 50", "c": "a 50, b 50", "a b": "c 100", "a b c": ""} {
		got := r.Without(func(name string) bool { return slices.Contains(strings.Fields(gone), name) })
		if shares(got) != want {
			t.Errorf("without %s: %s, want %s", gone, shares(got), want)
		}
	}
}
