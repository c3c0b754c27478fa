// Package rollout moves a route's traffic to a new revision step by step.
//
// A configuration's share of the requests goes to its latest ready revision. When that is another
// than before, the new one begins with 1 %, taken from its predecessor. How long it took until the
// route served that split is the shortest time a step may take; the rest of the share follows in
// equal steps until the duration is over. Of several revisions that still drain the youngest goes
// first, so that a chain of quick changes does not leave many behind.
//
//	steady ──new revision──▶ begun ──split in force──▶ stepping ──last step──▶ steady
//	                           ▲                          │
//	                           └───── a newer revision ───┘
//
// The arithmetic and the JSON form are Knative Serving's (pkg/reconciler/route/traffic), so that
// either continues what the other began; test/oracle compares the two on random histories. All
// values are copied, never changed in place.
package rollout

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// A Rollout is how far every configuration of a route has come, sorted by tag and name.
type Rollout struct {
	// Configurations lists what follows a latest revision; a configuration is there once for the
	// main host, under the empty tag, and once for each tag.
	Configurations []Configuration `json:"configurations,omitempty"`
}

// A Configuration is the share of one host that follows a configuration's latest revision.
type Configuration struct {
	// Name of the configuration.
	Name string `json:"configurationName"`
	// Tag of the host; the main host has none.
	Tag string `json:"tag,omitempty"`
	// Percent of the host's requests that the Revisions share.
	Percent int `json:"percent"`
	// Revisions from the oldest to the newest: one in a steady state, more while rolling.
	Revisions []Revision `json:"revisions,omitempty"`
	// Steps is zero in a steady state.
	Steps Steps `json:"stepParams"`
}

// A Revision has a part of its Configuration's share.
type Revision struct {
	// Name of the revision.
	Name string `json:"revisionName"`
	// Percent of the host's requests, not of the configuration's share.
	Percent int `json:"percent"`
}

// Steps is when and how much moves; times are nanoseconds, since 1970 or long.
type Steps struct {
	// Start is when the new revision got its first percent.
	Start int64 `json:"starttime,omitempty"`
	// Next is when the next step is due; 0 until the first split is in force.
	Next int64 `json:"nextStepTime,omitempty"`
	// Every is the time between two steps.
	Every int64 `json:"stepDuration,omitempty"`
	// Size is the percent one step moves.
	Size int `json:"stepSize,omitempty"`
}

// New returns the Rollout in which every configuration is at its goal.
func New(goals []Configuration) Rollout {
	r := Rollout{Configurations: slices.Clone(goals)}
	r.sort()
	return r
}

// Parse reads what String wrote. What is not one, or cannot be one because its numbers do not add
// up, is no Rollout.
func Parse(text string) (Rollout, bool) {
	var r Rollout
	if err := json.Unmarshal([]byte(text), &r); err != nil || len(r.Configurations) == 0 {
		return Rollout{}, false
	}
	for _, c := range r.Configurations {
		sum := 0
		for _, rev := range c.Revisions {
			sum += rev.Percent
		}
		if c.Percent > 100 || c.Steps.Size < 0 || c.Steps.Size > c.Percent || sum != c.Percent {
			return Rollout{}, false
		}
	}
	return r, true
}

// String writes the Rollout as JSON.
func (r Rollout) String() string {
	text, err := json.Marshal(r)
	if err != nil {
		return "" // numbers and strings always have a JSON form
	}
	return string(text)
}

// Done tells whether nothing is rolling.
func (r Rollout) Done() bool {
	return !slices.ContainsFunc(r.Configurations, func(c Configuration) bool { return len(c.Revisions) > 1 })
}

// Of returns what is known of a configuration on a tag's host; nil when it is not there.
func (r Rollout) Of(tag, name string) *Configuration {
	for i := range r.Configurations {
		if c := &r.Configurations[i]; c.Tag == tag && c.Name == name {
			return c
		}
	}
	return nil
}

// Due is when the next step is to be made, the zero time when none is.
func (r Rollout) Due() time.Time {
	var next int64
	for _, c := range r.Configurations {
		if n := c.Steps.Next; n > 0 && (next == 0 || n < next) {
			next = n
		}
	}
	if next == 0 {
		return time.Time{}
	}
	return time.Unix(0, next)
}

// Without returns the Rollout without the revisions that are gone; their part goes to the newest of
// the rest.
func (r Rollout) Without(gone func(revision string) bool) Rollout {
	out := Rollout{Configurations: slices.Clone(r.Configurations)}
	for i := range out.Configurations {
		c := &out.Configurations[i]
		c.Revisions = slices.DeleteFunc(slices.Clone(c.Revisions), func(rev Revision) bool { return gone(rev.Name) })
		rest := c.Percent
		for _, rev := range c.Revisions {
			rest -= rev.Percent
		}
		if n := len(c.Revisions); n > 0 {
			c.Revisions[n-1].Percent += rest
		}
		if len(c.Revisions) < 2 {
			c.Steps = Steps{}
		}
	}
	out.Configurations = slices.DeleteFunc(out.Configurations, func(c Configuration) bool { return len(c.Revisions) == 0 })
	return out
}

func (r *Rollout) sort() {
	slices.SortFunc(r.Configurations, func(a, b Configuration) int {
		return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Name, b.Name))
	})
}
