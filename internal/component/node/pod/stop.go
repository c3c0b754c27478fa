package pod

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// cause says why a pod stops; a later one overrides an earlier one of lower value.
type cause int

const (
	stopDone     cause = iota // its containers ended, or its deadline passed: the object stays
	stopShutdown              // the node stops: the object stays and runs again later
	stopDelete                // the object is being deleted
	stopGone                  // the object is gone
)

// After a preStop hook used up the grace period, and after the kill, a container gets this long.
const (
	leastGrace = 2 * time.Second
	killWait   = 10 * time.Second
)

// stop is a pod's way down.
type stop struct {
	cause   cause
	limit   *deadline
	drained bool
	busy    bool // a task of the last steps runs
	netGone bool // the sandbox is gone
}

// deadline is a moment that can come closer.
type deadline struct {
	mu   sync.Mutex // guards when and timer
	when time.Time
	past chan struct{} // closed at that moment
	t    *time.Timer
}

func newDeadline(when time.Time) *deadline {
	d := &deadline{when: when, past: make(chan struct{})}
	d.t = time.AfterFunc(time.Until(when), func() { close(d.past) })
	return d
}

func (d *deadline) shorten(when time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if when.Before(d.when) && d.t.Stop() {
		d.when = when
		d.t.Reset(time.Until(when))
	}
}

func (d *deadline) left() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Until(d.when)
}

// context ends at the deadline.
func (d *deadline) context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-d.past:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func graceOf(pod *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	if pod.DeletionGracePeriodSeconds != nil {
		seconds = *pod.DeletionGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

// beginStop starts the way down, or hurries it.
func (p *Pod) beginStop(why cause, grace time.Duration) {
	switch p.stage {
	case stopped:
		p.stop.cause = max(p.stop.cause, why)
		return
	case stopping:
		p.stop.cause = max(p.stop.cause, why)
		p.stop.limit.shorten(time.Now().Add(grace))
		return
	case active:
	}
	p.stage = stopping
	p.stop = &stop{cause: why, limit: newDeadline(time.Now().Add(grace))}
	for _, c := range p.containers {
		if c.phase == running {
			if why != stopDone {
				p.event(corev1.EventTypeNormal, eventKilling, "Stopping container "+c.spec.Name)
			}
		}
	}
	if p.host.Drainer == nil || why == stopDone || !p.anyAlive() {
		p.stop.drained = true
		return
	}
	limit := p.stop.limit
	p.beside(func(ctx context.Context) func() {
		ctx, cancel := limit.context(ctx)
		defer cancel()
		// Something must be left of the grace period for the containers' own farewell.
		ctx, cancel = context.WithTimeout(ctx, max(grace-leastGrace, grace/2))
		defer cancel()
		if err := p.host.Drainer.Drain(ctx, p.uid); err != nil && ctx.Err() == nil {
			p.log.Warn("draining the pod", "error", err)
		}
		return func() { p.stop.drained = true }
	})
}

func (p *Pod) anyAlive() bool { return slices.ContainsFunc(p.containers, (*container).alive) }

// stepStop goes down step by step: containers, then sidecars from the last to the first, then the
// sandbox, then the volumes.
func (p *Pod) stepStop() {
	if !p.stop.drained || p.stop.busy {
		return
	}
	left := false
	for _, c := range p.containers {
		if c.kind != sidecar && c.alive() {
			left = true
			p.killBy(c, p.stop.limit)
		}
	}
	if left {
		return
	}
	for _, c := range slices.Backward(p.ofKind(sidecar)) {
		if c.alive() {
			p.killBy(c, p.stop.limit)
			return
		}
	}
	if p.sandbox.busy || p.volumes.busy {
		return
	}
	p.stop.busy = true
	why := p.stop.cause
	if !p.stop.netGone {
		p.stopSandbox()
		return
	}
	p.lastStep("removing its volumes", func(context.Context) error {
		if why == stopShutdown {
			return p.host.Volumes.Release(p.uid)
		}
		return p.host.Volumes.Teardown(p.uid)
	}, p.reachEnd)
}

// stopSandbox takes down the sandbox, its containers with it, and lets their images go.
func (p *Pod) stopSandbox() {
	names := p.names()
	p.lastStep("stopping its sandbox", func(ctx context.Context) error {
		err := p.host.Runtime.StopSandbox(ctx, string(p.uid))
		if err == nil || errors.Is(err, runtime.ErrNotFound) {
			p.releaseImages(names)
		}
		return err
	}, func() { p.stop.netGone = true })
}

// lastStep repeats a step of the way down until it succeeds.
func (p *Pod) lastStep(what string, fn func(context.Context) error, then func()) {
	p.beside(func(ctx context.Context) func() {
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, retryTop) {
			err := fn(ctx)
			if err == nil || errors.Is(err, runtime.ErrNotFound) {
				return func() { p.stop.busy = false; then() }
			}
			if ctx.Err() != nil {
				return nil
			}
			p.log.Warn("stopping the pod", "step", what, "error", err)
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	})
}

func (p *Pod) reachEnd() {
	p.stage = stopped
	p.sandbox = task[runtime.Sandbox]{}
	p.stop.limit.shorten(time.Now())
}

// kill ends one run; it starts again as its restart policy says.
func (p *Pod) kill(c *container, grace time.Duration) {
	p.killBy(c, newDeadline(time.Now().Add(grace)))
}

func (p *Pod) killBy(c *container, limit *deadline) {
	if c.phase != running || c.killing {
		return
	}
	c.killing = true
	c.quiet()
	id, spec, gone, run := c.id, c.spec, c.gone, c.run
	target := p.target(id, spec)
	p.beside(func(ctx context.Context) func() {
		if limit.left() > 0 {
			if spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil {
				hookCtx, cancel := limit.context(ctx)
				if err := p.hook(hookCtx, spec.Lifecycle.PreStop, target); err != nil && ctx.Err() == nil {
					p.event(corev1.EventTypeWarning, eventPreStop, "PreStopHook failed: "+err.Error())
				}
				cancel()
			}
			p.signal(ctx, id, stopSignal(spec, run))
			if p.waitGone(ctx, gone, limit) {
				return nil
			}
		}
		p.signal(ctx, id, int(unix.SIGKILL))
		timer := time.NewTimer(killWait)
		defer timer.Stop()
		select {
		case <-gone:
		case <-ctx.Done():
		case <-timer.C:
			return func() { p.lost(c, id) }
		}
		return nil
	})
}

// waitGone waits until the run has ended or its time is up, which is never less than leastGrace.
func (p *Pod) waitGone(ctx context.Context, gone <-chan struct{}, limit *deadline) bool {
	least := time.NewTimer(leastGrace)
	defer least.Stop()
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return true
	case <-limit.past:
	}
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return true
	case <-least.C:
		return false
	}
}

// lost gives up on a container whose end was never told: the sandbox's end will take what is left.
func (p *Pod) lost(c *container, id string) {
	if c.id != id || c.phase != running {
		return
	}
	p.log.Error("a killed container's end was not reported", "container", c.spec.Name)
	p.ended(c, runtime.Container{ID: id, ExitCode: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), Finished: time.Now()}, nil)
}

func (p *Pod) signal(ctx context.Context, id string, sig int) {
	err := p.host.Runtime.SignalContainer(ctx, id, sig)
	if err != nil && !errors.Is(err, runtime.ErrNotFound) && !errors.Is(err, runtime.ErrNotRunning) && ctx.Err() == nil {
		p.log.Warn("signalling a container", "id", id, "signal", sig, "error", err)
	}
}

// stopSignal is what asks a container to end: the pod's choice, else the image's, else SIGTERM.
func stopSignal(spec *corev1.Container, run runtime.Container) int {
	name := run.Annotations[annotationStop]
	if spec.Lifecycle != nil && spec.Lifecycle.StopSignal != nil {
		name = string(*spec.Lifecycle.StopSignal)
	}
	return signalNumber(name)
}
