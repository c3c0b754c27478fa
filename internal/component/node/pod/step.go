package pod

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// containerPrefix stands before container IDs in the API.
const containerPrefix = "ebb://"

// step looks at everything and does what can be done now. It never waits.
func (p *Pod) step(now time.Time) {
	if p.stage == active {
		p.checkDeadline(now)
	}
	if p.stage == active && p.complete() {
		p.beginStop(stopDone, 0)
	}
	switch p.stage {
	case active:
		p.setup(now)
		p.pulls(now)
		p.startNext(now)
	case stopping:
		p.stepStop()
	case stopped:
	}
}

func (p *Pod) checkDeadline(now time.Time) {
	if p.pod.Spec.ActiveDeadlineSeconds == nil {
		return
	}
	end := p.started.Add(time.Duration(*p.pod.Spec.ActiveDeadlineSeconds) * time.Second)
	if now.Before(end) {
		p.at(end)
		return
	}
	p.failure = failure{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}
	p.event(corev1.EventTypeNormal, "DeadlineExceeded", p.failure.message)
	p.beginStop(stopDone, graceOf(p.pod))
}

// complete says whether nothing of the pod will run again.
func (p *Pod) complete() bool {
	for _, c := range p.ofKind(initial) {
		if p.over(c) && c.term.ExitCode != 0 {
			return true
		}
	}
	for _, c := range p.ofKind(regular) {
		if !p.over(c) {
			return false
		}
	}
	return true
}

// startNext starts what may start, in Kubernetes' order: each init container after the one before is
// done (a sidecar: is up), then the containers, each after the postStart hook of the one before.
func (p *Pod) startNext(now time.Time) {
	if !p.sandbox.ok || !p.volumes.ok || !p.initialize(now) {
		return
	}
	for _, c := range p.ofKind(regular) {
		if !p.follow(c, now) {
			return
		}
	}
	for _, c := range p.ofKind(ephemeral) {
		if c.phase == waiting {
			p.tryStart(c, now)
		}
	}
}

// follow brings one container along and says whether the next may follow: one that cannot start
// for a reason of its own does not hold up the others.
func (p *Pod) follow(c *container, now time.Time) bool {
	if (c.phase == waiting || c.phase == ended) && !p.over(c) {
		p.tryStart(c, now)
	}
	switch c.phase {
	case starting:
		return false
	case running:
		return c.hooked
	case waiting:
		return c.reason == reasonConfig || c.image.err != nil
	case ended:
	}
	return true
}

// initialize brings the init containers along and says whether all are done. Once the containers
// have run in this sandbox, an init container is not needed any more; a sidecar still is.
func (p *Pod) initialize(now time.Time) bool {
	ran := p.ran()
	for _, c := range p.ofKind(initial, sidecar) {
		done := p.initialized(c)
		if !done && !c.alive() && !p.over(c) && (c.kind == sidecar || !ran) {
			p.tryStart(c, now)
		}
		if !done && !ran {
			return false
		}
	}
	return true
}

// initialized says whether what comes after this init container may start.
func (p *Pod) initialized(c *container) bool {
	if c.kind == sidecar {
		return c.phase == running && c.up
	}
	return c.phase == ended && c.term.ExitCode == 0
}

// ran says whether any of the pod's containers proper was started in this sandbox.
func (p *Pod) ran() bool {
	for _, c := range p.ofKind(regular) {
		if c.phase != waiting && c.id != "" {
			return true
		}
	}
	return false
}

// tryStart starts the container unless it has to wait for its image or its back-off.
func (p *Pod) tryStart(c *container, now time.Time) {
	if now.Before(c.until) {
		p.at(c.until)
		return
	}
	if c.image.ok {
		p.start(c)
	}
}

// exited takes the end of a container as the runtime tells it.
func (p *Pod) exited(rc runtime.Container) {
	for _, c := range p.containers {
		if c.id != rc.ID {
			continue
		}
		switch c.phase {
		case starting:
			c.early = &rc
		case running:
			p.ended(c, rc, nil)
		case waiting, ended: // known already
		}
		return
	}
}

// ended records how a run ended and when the next one may begin.
func (p *Pod) ended(c *container, rc runtime.Container, how *corev1.ContainerStateTerminated) {
	c.quiet()
	close(c.gone)
	if rc.Finished.IsZero() {
		rc.Finished = time.Now()
	}
	c.phase, c.run, c.up, c.ready = ended, rc, false, false
	c.reason, c.message = "", ""
	if how == nil {
		how = &corev1.ContainerStateTerminated{Reason: exitReason(rc), Message: p.terminationMessage(c, rc.ExitCode != 0)}
	}
	how.ExitCode, how.Signal = int32(rc.ExitCode), int32(rc.Signal)
	how.StartedAt, how.FinishedAt = metav1.NewTime(c.began), metav1.NewTime(rc.Finished)
	how.ContainerID = containerPrefix + rc.ID
	if how.ExitCode == 0 && p.interrupted() {
		// It obeyed the node's stop and is not done: without this it would not run again.
		how.ExitCode, how.Reason, how.Message = interruptedCode, "NodeShutdown", "The node stopped before the container was done"
	}
	c.term = how
	if rc.OOMKilled {
		p.event(corev1.EventTypeWarning, eventOOM, "Container "+c.spec.Name+" ran out of memory and was killed")
	}
	if p.stage != active || !p.restarts(c, how.ExitCode) {
		return
	}
	c.until = c.crash.next(rc.Finished)
	c.delay = c.until.Sub(rc.Finished)
	if c.spec.ImagePullPolicy == corev1.PullAlways || len(c.image.value.RootFS) == 0 {
		c.image = task[runtime.Image]{}
	}
	if c.delay > 0 {
		p.event(corev1.EventTypeWarning, eventBackOff,
			fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.spec.Name, p.fullName()))
	}
}

// interruptedCode is what a container that died of SIGTERM has.
const interruptedCode = 128 + 15

func (p *Pod) interrupted() bool {
	return p.stage == stopping && p.stop.cause == stopShutdown && p.pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure
}

func (p *Pod) fullName() string {
	return p.pod.Name + "_" + p.pod.Namespace + "(" + string(p.uid) + ")"
}

func exitReason(rc runtime.Container) string {
	switch {
	case rc.OOMKilled:
		return "OOMKilled"
	case rc.ExitCode == 0:
		return "Completed"
	default:
		return "Error"
	}
}

// crashMessage is what a container in back-off shows.
func (p *Pod) crashMessage(c *container) string {
	return "back-off " + strconv.Itoa(int(c.delay/time.Second)) + "s restarting failed container=" + c.spec.Name + " pod=" + p.fullName()
}
