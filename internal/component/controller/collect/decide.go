package collect

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/gc"
)

// state is all that a decision about a Configuration's Revisions rests on.
type state struct {
	configuration *servingv1.Configuration
	revisions     []*servingv1.Revision // all that carry the Configuration's label
	settings      *gc.Config
	now           time.Time
}

// plan is what is to be done.
type plan struct {
	remove []*servingv1.Revision
	due    time.Time // when another Revision will be too old; zero when none will
}

// decide makes the plan. Revisions that no traffic leads to are removed, the longest without it
// first: those older than both ages as long as the minimum remains, then those beyond the maximum.
func decide(s state) plan {
	c := s.settings
	if !ages(c) && c.MaxNonActiveRevisions == gc.Disabled {
		return plan{}
	}
	all := idle(s)
	spare := len(all) - int(c.MinNonActiveRevisions)
	var p plan
	var rest []*servingv1.Revision
	for _, rev := range all {
		if ages(c) && len(p.remove) < spare && !s.now.Before(tooOld(c, rev)) {
			p.remove = append(p.remove, rev)
		} else {
			rest = append(rest, rev)
		}
	}
	if most := int(c.MaxNonActiveRevisions); most != gc.Disabled && len(rest) > most {
		p.remove = append(p.remove, rest[:len(rest)-most]...)
		rest = rest[len(rest)-most:]
	}
	if ages(c) && len(p.remove) < spare {
		p.due = next(c, rest)
	}
	return p
}

// next is when the first of the Revisions will be too old; zero when there is none.
func next(c *gc.Config, revisions []*servingv1.Revision) time.Time {
	var due time.Time
	for _, rev := range revisions {
		if at := tooOld(c, rev); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return due
}

// ages tells whether age alone can make a Revision go.
func ages(c *gc.Config) bool {
	return c.RetainSinceCreateTime != gc.Disabled || c.RetainSinceLastActiveTime != gc.Disabled
}

// idle lists the Revisions that may go at all, the one longest without traffic first.
func idle(s state) []*servingv1.Revision {
	var out []*servingv1.Revision
	for _, rev := range s.revisions {
		if rev.DeletionTimestamp == nil && rev.Name != s.configuration.Status.LatestReadyRevisionName &&
			!strings.EqualFold(rev.Annotations[serving.RevisionPreservedAnnotationKey], "true") &&
			rev.GetRoutingState() == servingv1.RoutingStateReserve {
			out = append(out, rev)
		}
	}
	slices.SortFunc(out, func(a, b *servingv1.Revision) int {
		return cmp.Or(lastActive(a).Compare(lastActive(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// tooOld is when the Revision has been there, and without traffic, for as long as it is retained.
func tooOld(c *gc.Config, rev *servingv1.Revision) time.Time {
	var at time.Time
	if c.RetainSinceCreateTime != gc.Disabled {
		at = rev.CreationTimestamp.Add(c.RetainSinceCreateTime)
	}
	if c.RetainSinceLastActiveTime != gc.Disabled {
		if active := lastActive(rev).Add(c.RetainSinceLastActiveTime); active.After(at) {
			at = active
		}
	}
	return at
}

// lastActive is when traffic left the Revision, or when it was made.
func lastActive(rev *servingv1.Revision) time.Time {
	if at := rev.GetRoutingStateModified(); !at.IsZero() {
		return at
	}
	return rev.CreationTimestamp.Time
}
