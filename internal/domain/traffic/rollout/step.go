package rollout

import (
	"math"
	"slices"
	"time"
)

// Observe says that the present split is in force at now: what has begun and was not observed yet
// gets its steps, spread over what is left of the duration.
func (r Rollout) Observe(now time.Time, duration time.Duration) Rollout {
	out := Rollout{Configurations: slices.Clone(r.Configurations)}
	for i := range out.Configurations {
		c := &out.Configurations[i]
		if c.Steps.Start > 0 && c.Steps.Every == 0 {
			c.plan(now.UnixNano(), math.Trunc(duration.Seconds()))
		}
	}
	return out
}

// plan spreads the rest of the share over the seconds left. A step takes at least as long as the
// first percent took, a second at least, and moves at least 1 %.
func (c *Configuration) plan(now int64, seconds float64) {
	shortest := max(1, math.Ceil(time.Duration(now-c.Steps.Start).Seconds()))
	left := max(1, seconds-shortest)
	percent := float64(c.Percent - 1)
	if percent < 1 {
		return
	}
	steps := min(max(1, left/shortest), percent)
	every := left / steps * float64(time.Second)
	c.Steps.Every = int64(every)
	c.Steps.Size = int(math.Round(percent / steps))
	c.Steps.Next = int64(float64(now) + every)
}

// Step returns the Rollout that leads from before towards the goals r, as of now. A configuration
// that is new to its host starts at its goal, and so does one with no more than 1 %.
func (r Rollout) Step(before Rollout, now time.Time) Rollout {
	if len(before.Configurations) == 0 {
		return r
	}
	var out Rollout
	for _, tag := range tags(r) {
		goals := only(r, tag)
		if len(only(before, tag)) == 0 {
			out.Configurations = append(out.Configurations, goals[0])
			continue
		}
		for _, goal := range goals {
			if was := before.Of(tag, goal.Name); was != nil && goal.Percent > 1 {
				goal = goal.step(*was, now.UnixNano())
			}
			out.Configurations = append(out.Configurations, goal)
		}
	}
	out.sort()
	return out
}

func tags(r Rollout) []string {
	var out []string
	for _, c := range r.Configurations {
		if !slices.Contains(out, c.Tag) {
			out = append(out, c.Tag)
		}
	}
	return out
}

func only(r Rollout, tag string) []Configuration {
	var out []Configuration
	for _, c := range r.Configurations {
		if c.Tag == tag {
			out = append(out, c)
		}
	}
	return out
}

// step leads one configuration from was towards the goal, which has one revision: the latest.
func (c Configuration) step(was Configuration, now int64) Configuration {
	revisions := resized(was, c.Percent)
	if len(revisions) == 0 {
		return c
	}
	latest := c.Revisions[0].Name
	out := c
	switch {
	case revisions[len(revisions)-1].Name != latest:
		out.Revisions, out.Steps = begun(revisions, latest), Steps{Start: now}
	case len(revisions) > 1:
		out.Revisions, out.Steps = revisions, was.Steps
		if out.Steps.Size > 0 && now >= out.Steps.Next {
			out.move(now)
		}
	}
	return out
}

// resized fits the revisions to a share that was changed meanwhile: what comes goes to the newest,
// what goes is taken from the oldest.
func resized(was Configuration, percent int) []Revision {
	out := slices.Clone(was.Revisions)
	if len(out) == 0 {
		return nil
	}
	more := percent - was.Percent
	if more >= 0 {
		out[len(out)-1].Percent += more
		return out
	}
	less := -more
	for less > 0 && len(out) > 0 {
		if out[0].Percent > less {
			out[0].Percent -= less
			break
		}
		less -= out[0].Percent
		out = out[1:]
	}
	return out
}

// begun gives the first percent to the latest revision, from the youngest that has one.
func begun(revisions []Revision, latest string) []Revision {
	for i := len(revisions) - 1; i >= 0; i-- {
		if revisions[i].Percent > 0 {
			revisions[i].Percent--
			break
		}
	}
	revisions = slices.DeleteFunc(revisions, func(r Revision) bool { return r.Percent == 0 })
	return append(revisions, Revision{Name: latest, Percent: 1})
}

// move makes one step: Size percent from the youngest of the older revisions to the newest.
func (c *Configuration) move(now int64) {
	older, newest := c.Revisions[:len(c.Revisions)-1], c.Revisions[len(c.Revisions)-1]
	for rest := c.Steps.Size; rest > 0 && len(older) > 0; {
		from := &older[len(older)-1]
		if from.Percent > rest {
			from.Percent -= rest
			break
		}
		rest -= from.Percent
		older = older[:len(older)-1]
	}
	newest.Percent = min(newest.Percent+c.Steps.Size, c.Percent)
	c.Revisions = append(c.Revisions[:len(older)], newest)
	if len(older) == 0 {
		c.Steps = Steps{}
		return
	}
	c.Steps.Next = now + c.Steps.Every
}
