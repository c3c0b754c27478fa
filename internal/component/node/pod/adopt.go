package pod

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// adopt fits together what the runtime still has and what the API remembers. What runs goes on
// running as the same attempt; what the API believes running and the runtime does not know was lost
// with the machine, and counts as a crashed run.
func (p *Pod) adopt(s *runtime.Sandbox) {
	if s != nil {
		p.sandbox.succeed(*s)
	}
	for _, c := range p.containers {
		if api := apiStatus(&p.pod.Status, c.spec.Name); api != nil {
			p.remember(c, api)
		}
		if s != nil {
			p.takeRuns(c, s.Containers)
		}
	}
	for _, c := range p.containers {
		if c.phase == running {
			p.watch(c, false)
			p.lease(c.spec.Name, c.imageID)
		}
	}
	if over := p.pod.Status.Phase; over == corev1.PodSucceeded || over == corev1.PodFailed {
		p.failure = failure{p.pod.Status.Reason, p.pod.Status.Message}
		p.beginStop(stopDone, 0)
	}
}

func apiStatus(s *corev1.PodStatus, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// remember takes a container's history from the API.
func (p *Pod) remember(c *container, api *corev1.ContainerStatus) {
	c.last = api.LastTerminationState.Terminated
	if api.ContainerID == "" && api.State.Running == nil && api.State.Terminated == nil && c.last == nil {
		return
	}
	c.attempt = int(api.RestartCount)
	c.id = strings.TrimPrefix(api.ContainerID, containerPrefix)
	c.gone = make(chan struct{})
	c.imageID = api.ImageID
	c.ready = api.Ready
	c.up = api.Started != nil && *api.Started
	c.phase, c.term = ended, api.State.Terminated
	if c.term == nil {
		p.rememberEnd(c, api)
	}
	c.term = c.term.DeepCopy()
	close(c.gone)
	if c.kind == initial && !p.sandbox.ok && p.pod.Status.Phase != corev1.PodSucceeded && p.pod.Status.Phase != corev1.PodFailed {
		// A new sandbox begins anew: what init containers set up may have gone with the old one.
		c.phase = waiting
		c.last, c.term = c.term, nil
	}
}

// rememberEnd finds how a container ended that the API does not show as terminated.
func (p *Pod) rememberEnd(c *container, api *corev1.ContainerStatus) {
	if api.State.Waiting == nil || c.last == nil {
		c.term = &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", FinishedAt: metav1.Now(), ContainerID: api.ContainerID,
			Message: "The container could not be located when the node was restarted",
		}
		return
	}
	c.term, c.last = c.last, nil
	if api.State.Waiting.Reason == reasonCrash {
		c.until = c.crash.resume(c.attempt, c.term.FinishedAt.Time)
		c.delay = c.until.Sub(c.term.FinishedAt.Time)
	}
}

// takeRuns finds the container's newest run in the runtime.
func (p *Pod) takeRuns(c *container, list []runtime.Container) {
	var runs []runtime.Container
	for _, rc := range list {
		if rc.Name == c.spec.Name {
			runs = append(runs, rc)
		}
	}
	if len(runs) > 0 {
		p.takeRun(c, slices.MaxFunc(runs, func(a, b runtime.Container) int { return a.Attempt - b.Attempt }))
	}
}

func (p *Pod) takeRun(c *container, rc runtime.Container) {
	known := c.id == rc.ID
	if c.phase == ended && rc.Attempt > c.attempt {
		c.last = c.term
	}
	c.run, c.id, c.attempt, c.began = rc, rc.ID, rc.Attempt, rc.Started
	c.gone = make(chan struct{})
	c.imageID = rc.Annotations[annotationImageID]
	if rc.Running() {
		c.phase, c.term = running, nil
		c.ready, c.up = c.ready && known, c.up && known
		return
	}
	if known && c.phase == ended && c.term != nil && c.term.Reason != "ContainerStatusUnknown" {
		close(c.gone)
		return // the API knows this end already
	}
	c.phase = running // for ended to take it from there
	p.ended(c, rc, nil)
	if c.until.Before(time.Now()) {
		c.until = time.Time{}
	}
}
