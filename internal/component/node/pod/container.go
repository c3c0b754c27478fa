package pod

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

type kind int

const (
	regular kind = iota
	initial      // runs to its end before the next one starts
	sidecar      // an init container that stays
	ephemeral
)

type phase int

const (
	waiting phase = iota
	starting
	running
	ended
)

// container is one container of the pod through all its restarts.
type container struct {
	spec    *corev1.Container
	kind    kind
	target  string // of an ephemeral container
	phase   phase
	attempt int    // of the current run; restartCount
	id      string // of the current run, "" before the first
	run     runtime.Container
	image   task[runtime.Image]
	imageID string // of the current run's image

	reason, message string // why it waits
	began           time.Time
	term            *corev1.ContainerStateTerminated // how the current run ended
	last            *corev1.ContainerStateTerminated // how the one before ended
	early           *runtime.Container               // an end that was told before the start

	crash backoff
	until time.Time     // no start before
	delay time.Duration // the back-off being waited for, 0 for none

	up      bool // startup probe passed, or there is none
	ready   bool
	hooked  bool // postStart is done
	killing bool
	gone    chan struct{}      // closed when the current run has ended
	cancel  context.CancelFunc // ends probes and hooks of this run
}

// quiet ends the run's probes and hooks.
func (c *container) quiet() {
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
	}
}

// alive says whether something of it may run.
func (c *container) alive() bool { return c.phase == starting || c.phase == running }

func (p *Pod) makeContainers() {
	for i := range p.pod.Spec.InitContainers {
		c := &container{spec: &p.pod.Spec.InitContainers[i], kind: initial}
		if c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			c.kind = sidecar
		}
		p.containers = append(p.containers, c)
	}
	for i := range p.pod.Spec.Containers {
		p.containers = append(p.containers, &container{spec: &p.pod.Spec.Containers[i]})
	}
	for _, c := range p.containers {
		c.attempt = -1
	}
	p.addEphemeral()
}

// addEphemeral takes up ephemeral containers that were added since, and new images of the others.
func (p *Pod) addEphemeral() {
	for i := range p.pod.Spec.EphemeralContainers {
		e := &p.pod.Spec.EphemeralContainers[i]
		if p.find(e.Name) != nil {
			continue
		}
		spec := corev1.Container(e.EphemeralContainerCommon)
		p.containers = append(p.containers, &container{spec: &spec, kind: ephemeral, target: e.TargetContainerName, attempt: -1})
	}
	p.takeSpecs(p.pod.Spec.InitContainers)
	p.takeSpecs(p.pod.Spec.Containers)
}

// takeSpecs points the containers to the newest spec. A changed image restarts its container.
func (p *Pod) takeSpecs(specs []corev1.Container) {
	for i := range specs {
		c := p.find(specs[i].Name)
		if c == nil || c.spec == &specs[i] {
			continue
		}
		changed := c.spec.Image != specs[i].Image
		c.spec = &specs[i]
		if changed {
			c.image = task[runtime.Image]{}
			if c.phase == running && p.stage == active {
				p.event(corev1.EventTypeNormal, eventKilling, "Container "+c.spec.Name+" definition changed, will be restarted")
				p.kill(c, graceOf(p.pod))
			}
		}
	}
}

func (p *Pod) find(name string) *container {
	i := slices.IndexFunc(p.containers, func(c *container) bool { return c.spec.Name == name })
	if i < 0 {
		return nil
	}
	return p.containers[i]
}

// names are those of all containers.
func (p *Pod) names() []string {
	out := make([]string, len(p.containers))
	for i, c := range p.containers {
		out[i] = c.spec.Name
	}
	return out
}

func (p *Pod) ofKind(kinds ...kind) []*container {
	var out []*container
	for _, c := range p.containers {
		if slices.Contains(kinds, c.kind) {
			out = append(out, c)
		}
	}
	return out
}

// restarts says whether a container that ended that way should run again.
func (p *Pod) restarts(c *container, exitCode int32) bool {
	if c.kind == ephemeral || c.kind == sidecar {
		return c.kind == sidecar
	}
	for i := range c.spec.RestartPolicyRules {
		rule := &c.spec.RestartPolicyRules[i]
		if rule.ExitCodes == nil {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, exitCode)
		if in == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return rule.Action == corev1.ContainerRestartRuleActionRestart
		}
	}
	policy := p.pod.Spec.RestartPolicy
	if c.spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default:
		return c.kind != initial || exitCode != 0
	}
}

// over says whether a container has ended and will not run again.
func (p *Pod) over(c *container) bool {
	return c.phase == ended && !p.restarts(c, c.term.ExitCode)
}
