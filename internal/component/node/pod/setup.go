package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod/network"
	"ebb.dev/ebb/internal/component/node/pod/resource"
)

// Event reasons, the kubelet's.
const (
	eventPulling   = "Pulling"
	eventPulled    = "Pulled"
	eventCreated   = "Created"
	eventStarted   = "Started"
	eventKilling   = "Killing"
	eventBackOff   = "BackOff"
	eventFailed    = "Failed"
	eventUnhealthy = "Unhealthy"
	eventMount     = "FailedMount"
	eventSandbox   = "FailedCreatePodSandBox"
	eventHostPort  = "HostPortNotOpened"
	eventRenew     = "SandboxChanged"
	eventNever     = "ErrImageNeverPull"
	eventPostStart = "FailedPostStartHook"
	eventPreStop   = "FailedPreStopHook"
	eventEnv       = "InvalidEnvironmentVariableNames"
	eventOOM       = "OOMKilling"
)

// Retries of sandboxes and volumes; a change of what a volume refers to retries at once.
const (
	retryFirst = 500 * time.Millisecond
	retryTop   = 20 * time.Second
)

// setup starts what the pod needs before its containers: sandbox and volumes side by side, and the
// images beside both.
func (p *Pod) setup(now time.Time) {
	if start, wait := p.sandbox.due(now); start {
		p.startSandbox()
	} else if !wait.IsZero() {
		p.at(wait)
	}
	if start, wait := p.volumes.due(now); start {
		p.setVolumes()
	} else if !wait.IsZero() {
		p.at(wait)
	}
	if p.volumes.ok && !p.volumes.value.Refresh.IsZero() {
		if now.Before(p.volumes.value.Refresh) {
			p.at(p.volumes.value.Refresh)
		} else if !p.volumes.busy {
			p.setVolumes()
		}
	}
}

func (p *Pod) startSandbox() {
	p.sandbox.busy = true
	pod := p.pod
	p.beside(func(ctx context.Context) func() {
		s, err := p.createSandbox(ctx, pod)
		return func() { p.sandboxStarted(s, err) }
	})
}

// errUsers keeps a pod that asks for users of its own from running with the machine's instead.
var errUsers = errors.New("hostUsers: false asks for a user namespace, which this node cannot give: leave it out, or run as another user by securityContext.runAsUser")

// warnHostPorts tells that ports asked for on the host lead nowhere.
func (p *Pod) warnHostPorts(pod *corev1.Pod) {
	if pod.Spec.HostNetwork {
		return
	}
	for i := range pod.Spec.Containers {
		for _, port := range pod.Spec.Containers[i].Ports {
			if port.HostPort != 0 {
				p.event(corev1.EventTypeWarning, eventHostPort, fmt.Sprintf(
					"Host port %d is not opened: this node reaches pods by their addresses; use a Service of type NodePort or LoadBalancer.", port.HostPort))
			}
		}
	}
}

func (p *Pod) createSandbox(ctx context.Context, pod *corev1.Pod) (runtime.Sandbox, error) {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		return runtime.Sandbox{}, errUsers
	}
	p.warnHostPorts(pod)
	handler, err := p.host.Handler(ctx, pod)
	if err != nil {
		return runtime.Sandbox{}, err
	}
	host, _ := network.Hostname(pod, p.host.NodeName, p.host.Cluster)
	share := pod.Spec.ShareProcessNamespace
	spec := runtime.SandboxSpec{
		ID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, Handler: handler, Hostname: host,
		Resources:   resource.Pod(pod, p.host.MaxPIDs),
		HostNetwork: pod.Spec.HostNetwork, HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
		ShareProcessNamespace: share != nil && *share,
		Annotations:           map[string]string{"io.kubernetes.pod.uid": string(pod.UID)},
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if spec.Sysctls == nil {
				spec.Sysctls = map[string]string{}
			}
			spec.Sysctls[s.Name] = s.Value
		}
	}
	return p.host.Runtime.StartSandbox(ctx, spec)
}

func (p *Pod) sandboxStarted(s runtime.Sandbox, err error) {
	if p.stage != active {
		p.sandbox.busy = false
		if err == nil {
			p.sandbox.ok, p.sandbox.value = true, s // so that stopping takes it down
		}
		return
	}
	if err != nil {
		p.sandbox.fail(err, time.Now(), retryFirst, retryTop)
		p.event(corev1.EventTypeWarning, eventSandbox, "Failed to create pod sandbox: "+err.Error())
		p.log.Warn("starting the pod's sandbox", "error", err)
		return
	}
	p.sandbox.succeed(s)
	p.stamps["sandbox"] = time.Now()
}

// renewSandbox replaces a sandbox that has ended by itself, and its containers with it.
func (p *Pod) renewSandbox() {
	if p.stage != active || !p.sandbox.ok || p.sandbox.busy {
		return
	}
	old := p.sandbox.value
	p.sandbox = task[runtime.Sandbox]{busy: true}
	p.event(corev1.EventTypeNormal, eventRenew, "Pod sandbox changed, it will be killed and re-created.")
	p.beside(func(ctx context.Context) func() {
		err := p.host.Runtime.StopSandbox(ctx, old.ID)
		return func() {
			p.sandbox.busy = false
			if err != nil { // the next start fails as this one did and tries again
				p.sandbox.succeed(old)
				p.log.Warn("removing the pod's former sandbox", "error", err)
			}
		}
	})
}

func (p *Pod) setVolumes() {
	p.volumes.busy = true
	pod := p.pod
	p.beside(func(ctx context.Context) func() {
		res, err := p.host.Volumes.Setup(ctx, pod)
		return func() {
			p.volumes.busy = false
			switch {
			case err == nil:
				p.volumes.succeed(*res)
			case p.volumes.ok: // a refresh: what is there stays, and another try follows
				p.volumes.value.Refresh = time.Now().Add(retryTop)
				p.volumes.err = err
				p.log.Warn("refreshing the pod's volumes", "error", err)
			case p.stage == active:
				p.volumes.fail(err, time.Now(), retryFirst, retryTop)
				p.event(corev1.EventTypeWarning, eventMount, err.Error())
			}
		}
	})
}

// objectsChanged refreshes volumes and retries what waited for an object.
func (p *Pod) objectsChanged() {
	p.refreshVolumes()
	p.volumes.until = time.Time{}
	for _, c := range p.containers {
		if c.phase == waiting && c.reason == reasonConfig {
			c.until = time.Time{}
		}
	}
}

// refreshVolumes brings contents up to date after a change of the pod or of what it refers to.
func (p *Pod) refreshVolumes() {
	if p.stage != active || !p.volumes.ok || p.volumes.busy || !changeable(p.pod) {
		return
	}
	p.setVolumes()
}

func changeable(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil {
			return true
		}
	}
	return false
}

// pulls asks for the images of all containers that will start, side by side.
func (p *Pod) pulls(now time.Time) {
	for _, c := range p.containers {
		if c.phase != waiting && (c.phase != ended || p.over(c)) {
			continue
		}
		start, wait := c.image.due(now)
		switch {
		case start:
			p.pull(c)
		case !wait.IsZero():
			p.at(wait)
		}
	}
}

// imageError is a failure that has a waiting reason of its own.
type imageError struct {
	reason string
	err    error
}

func (e imageError) Error() string { return e.err.Error() }
func (e imageError) Unwrap() error { return e.err }

func (p *Pod) pull(c *container) {
	c.image.busy = true
	spec, pod := c.spec, p.pod
	p.beside(func(ctx context.Context) func() {
		img, err := p.getImage(ctx, pod, spec)
		return func() { p.imageHere(c, spec, img, err) }
	})
}

func (p *Pod) getImage(ctx context.Context, pod *corev1.Pod, spec *corev1.Container) (runtime.Image, error) {
	policy := spec.ImagePullPolicy
	if policy != corev1.PullAlways {
		img, err := p.host.Images.Present(ctx, spec.Image)
		if err == nil {
			p.event(corev1.EventTypeNormal, eventPulled, fmt.Sprintf("Container image %q already present on machine", spec.Image))
			return img, nil
		}
		if policy == corev1.PullNever {
			if errors.Is(err, runtime.ErrNotFound) {
				err = fmt.Errorf("container image %q is not present with pull policy of Never", spec.Image)
			}
			return img, imageError{eventNever, err}
		}
	}
	keychain, err := p.host.Keychain(ctx, pod)
	if err != nil {
		return runtime.Image{}, err
	}
	p.event(corev1.EventTypeNormal, eventPulling, fmt.Sprintf("Pulling image %q", spec.Image))
	begin := time.Now()
	img, err := p.host.Images.Pull(ctx, runtime.PullRequest{Reference: spec.Image, Keychain: keychain})
	if err != nil {
		return img, err
	}
	p.event(corev1.EventTypeNormal, eventPulled, fmt.Sprintf("Successfully pulled image %q in %s. Image size: %d bytes.",
		spec.Image, time.Since(begin).Round(time.Millisecond), img.SizeBytes))
	return img, nil
}

func (p *Pod) imageHere(c *container, spec *corev1.Container, img runtime.Image, err error) {
	if spec.Image != c.spec.Image { // changed meanwhile
		c.image.busy = false
		return
	}
	if err == nil {
		c.image.succeed(img)
		c.imageID = img.Digest
		return
	}
	if p.ctx.Err() != nil || p.stage != active {
		c.image.busy = false
		return
	}
	c.image.fail(err, time.Now(), backoffFirst, backoffTop)
	c.reason = reasonErrPull
	if special, ok := errors.AsType[imageError](err); ok {
		c.reason = special.reason
	}
	c.message = err.Error()
	p.event(corev1.EventTypeWarning, eventFailed, fmt.Sprintf("Failed to pull image %q: %v", spec.Image, err))
	p.event(corev1.EventTypeWarning, eventFailed, "Error: "+c.reason)
	p.box.post(func() { p.pullBacksOff(c) }) // after one status with the plain error
}

func (p *Pod) pullBacksOff(c *container) {
	if c.image.ok || c.image.busy || c.image.err == nil || c.reason == eventNever {
		return
	}
	c.message = fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %v", c.spec.Image, c.image.err)
	c.reason = reasonPullBackOff
	p.event(corev1.EventTypeNormal, eventBackOff, fmt.Sprintf("Back-off pulling image %q", c.spec.Image))
}

// stampCopy gives the observer a map of its own.
func (p *Pod) stampCopy() map[string]time.Time { return maps.Clone(p.stamps) }
