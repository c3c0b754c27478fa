package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod/probe"
	"ebb.dev/ebb/internal/domain/render/readiness"
)

// watch begins a run's hooks and probes; fresh is false for a run that outlived the node.
func (p *Pod) watch(c *container, fresh bool) {
	ctx, cancel := context.WithCancel(p.ctx)
	c.cancel = cancel
	if fresh && c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil {
		p.postStart(ctx, c)
	} else {
		c.hooked = true
	}
	if c.spec.StartupProbe != nil && !c.up {
		p.probe(ctx, c, probe.Startup, c.spec.StartupProbe, false)
		return
	}
	p.isUp(ctx, c)
}

// isUp is reached once the startup probe has passed, or when there is none.
func (p *Pod) isUp(ctx context.Context, c *container) {
	c.up = true
	if c.spec.ReadinessProbe == nil {
		c.ready = true
	} else {
		p.probe(ctx, c, probe.Readiness, c.spec.ReadinessProbe, c.ready)
	}
	if c.spec.LivenessProbe != nil {
		p.probe(ctx, c, probe.Liveness, c.spec.LivenessProbe, true)
	}
}

func (p *Pod) postStart(ctx context.Context, c *container) {
	id, spec, hook := c.id, c.spec, c.spec.Lifecycle.PostStart
	target := p.target(id, spec)
	p.beside(func(context.Context) func() {
		err := p.hook(ctx, hook, target)
		return func() {
			if c.id != id || c.phase != running {
				return
			}
			c.hooked = true
			if err != nil && ctx.Err() == nil {
				p.event(corev1.EventTypeWarning, eventPostStart, "PostStartHook failed: "+err.Error())
				p.event(corev1.EventTypeNormal, eventKilling, "FailedPostStartHook")
				p.kill(c, graceOf(p.pod))
			}
		}
	})
}

// target is what the probes and hooks of one run talk to.
func (p *Pod) target(id string, spec *corev1.Container) probe.Target {
	host := ""
	if ips := p.ips(p.sandbox.value, p.pod); len(ips) > 0 {
		host = ips[0]
	}
	return probe.Target{
		Host: host, Ports: spec.Ports, Dial: p.host.Dial,
		Exec: func(ctx context.Context, command []string) (int, []byte, error) {
			out := &limited{}
			code, err := p.host.Runtime.Exec(ctx, id, runtime.ExecSpec{Args: command, Streams: runtime.Streams{Out: out, Err: out}})
			return code, out.bytes(), err
		},
	}
}

func (p *Pod) probe(ctx context.Context, c *container, k probe.Kind, spec *corev1.Probe, healthy bool) {
	id := c.id
	target := p.target(id, c.spec)
	s := probe.NewSpec(k, spec, c.began)
	if k == probe.Readiness {
		extra := readiness.Of(p.pod.Annotations, c.spec.Name)
		target.Listening, target.HTTP2 = extra.Port, extra.HTTP2
		if extra.Aggressive {
			s.Hurry()
		}
	}
	report := func(healthy, changed bool, err error) {
		p.box.post(func() {
			if c.id != id || c.phase != running || ctx.Err() != nil {
				return
			}
			p.unhealthy(k, err)
			if changed {
				p.verdict(ctx, c, k, healthy)
			}
		})
	}
	check := func(ctx context.Context) error { return probe.Check(ctx, &s.Handler, target) }
	p.work.Go(func() { probe.Watch(ctx, s, healthy, check, report) })
}

// unhealthy tells of a failed attempt, if err is one.
func (p *Pod) unhealthy(k probe.Kind, err error) {
	switch {
	case err == nil:
	case errors.Is(err, probe.ErrUnhealthy):
		p.event(corev1.EventTypeWarning, eventUnhealthy, string(k)+" probe failed: "+trimUnhealthy(err))
	default:
		p.event(corev1.EventTypeWarning, eventUnhealthy, string(k)+" probe errored: "+err.Error())
	}
}

// verdict acts on a threshold that was reached.
func (p *Pod) verdict(ctx context.Context, c *container, k probe.Kind, healthy bool) {
	switch {
	case k == probe.Readiness:
		c.ready = healthy
	case healthy && k == probe.Startup:
		p.isUp(ctx, c)
	case !healthy && p.stage == active:
		spec := c.spec.LivenessProbe
		if k == probe.Startup {
			spec = c.spec.StartupProbe
		}
		p.event(corev1.EventTypeNormal, eventKilling, fmt.Sprintf("Container %s failed %s probe, will be restarted", c.spec.Name, strings.ToLower(string(k))))
		grace := graceOf(p.pod)
		if spec != nil && spec.TerminationGracePeriodSeconds != nil {
			grace = time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
		}
		p.kill(c, grace)
	}
}

// trimUnhealthy leaves out the sentinel's own word.
func trimUnhealthy(err error) string {
	text, prefix := err.Error(), probe.ErrUnhealthy.Error()+": "
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):]
	}
	return text
}

// hook runs one lifecycle handler to its end.
func (p *Pod) hook(ctx context.Context, h *corev1.LifecycleHandler, t probe.Target) error {
	switch {
	case h.Exec != nil:
		code, out, err := t.Exec(ctx, h.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, code, out)
		}
		return nil
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case h.HTTPGet != nil:
		return p.httpHook(ctx, h.HTTPGet, t)
	}
	return nil // tcpSocket hooks are defined to do nothing
}

func (p *Pod) httpHook(ctx context.Context, a *corev1.HTTPGetAction, t probe.Target) error {
	t.Agent = "kube-lifecycle/1.36"
	req, err := t.Request(ctx, a)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DialContext: t.Dial, DisableKeepAlives: true, TLSClientConfig: probe.AnyCertificate()}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 10<<10)); err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the hook's request answered %s", res.Status)
	}
	return nil
}

// limited keeps the first bytes of a command's output and drops the rest.
type limited struct {
	mu  sync.Mutex // guards buf: both streams write here
	buf []byte
}

const limitedMax = 10 << 10

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := limitedMax - len(l.buf); room > 0 {
		l.buf = append(l.buf, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func (l *limited) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf
}
