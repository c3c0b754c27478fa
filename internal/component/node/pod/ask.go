package pod

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// ErrNoContainer means the pod has no container of that name.
var ErrNoContainer = errors.New("no such container")

// ErrNotStarted means there is nothing of the container to look at yet.
var ErrNotStarted = errors.New("container has not started")

// ask runs fn inside the loop and waits for it.
func (p *Pod) ask(ctx context.Context, fn func()) error {
	ran := make(chan struct{})
	p.box.post(func() { defer close(ran); fn() })
	select {
	case <-ran:
		return nil
	case <-p.done:
		return fmt.Errorf("asking the pod: %w", runtime.ErrNotFound)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Log says where a container's log is and when it is complete. previous is the run before.
func (p *Pod) Log(ctx context.Context, name string, previous bool) (path string, complete <-chan struct{}, err error) {
	askErr := p.ask(ctx, func() {
		c := p.find(name)
		switch {
		case c == nil:
			err = fmt.Errorf("container %s is not valid for pod %s: %w", name, p.pod.Name, ErrNoContainer)
		case previous && (c.attempt < 1 || c.id == ""):
			err = fmt.Errorf("previous terminated container %q in pod %q not found: %w", name, p.pod.Name, ErrNotStarted)
		case previous:
			over := make(chan struct{})
			close(over)
			path, complete = p.logPath(name, c.attempt-1), over
		case c.id == "" || c.attempt < 0:
			reason := c.reason
			if reason == "" {
				reason = p.idleReason(c)
			}
			err = fmt.Errorf("container %q in pod %q is waiting to start: %s: %w", name, p.pod.Name, reason, ErrNotStarted)
		default:
			path, complete = p.logPath(name, c.attempt), c.gone
		}
	})
	return path, complete, errors.Join(askErr, err)
}

// Images are the digests of the images that containers run on or will run on.
func (p *Pod) Images(ctx context.Context) (digests []string, err error) {
	err = p.ask(ctx, func() {
		if p.stage == stopped {
			return
		}
		for _, c := range p.containers {
			if c.image.ok {
				digests = append(digests, c.image.value.Digest)
			}
			if c.id != "" && c.imageID != "" {
				digests = append(digests, c.imageID)
			}
		}
	})
	return digests, err
}

// Target is a running container that can be entered.
type Target struct {
	ID    string
	Spec  *corev1.Container
	Alive <-chan struct{} // closed when it ends
}

// Running finds a container that runs; "" is the pod's first.
func (p *Pod) Running(ctx context.Context, name string) (t Target, err error) {
	askErr := p.ask(ctx, func() {
		if name == "" {
			name = p.pod.Spec.Containers[0].Name
		}
		c := p.find(name)
		switch {
		case c == nil:
			err = fmt.Errorf("container %q: %w", name, ErrNoContainer)
		case c.phase != running:
			err = fmt.Errorf("container %q: %w", name, runtime.ErrNotRunning)
		default:
			t = Target{ID: c.id, Spec: c.spec, Alive: c.gone}
		}
	})
	return t, errors.Join(askErr, err)
}
