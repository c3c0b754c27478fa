package pod

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/component/node/pod/resource"
)

// publish computes the status after a step; the observer hears of changes at once, the node is told
// that the API should.
func (p *Pod) publish() {
	now := metav1.Now()
	before := p.status // only the loop writes it
	next := p.compute(now)
	ready := condition(next.Conditions, corev1.PodReady) == corev1.ConditionTrue
	if ready && p.stamps["ready"].IsZero() {
		p.stamps["ready"] = now.Time
	}
	p.observe(ready)
	end := p.stage == stopped
	changed := !equality.Semantic.DeepEqual(before, next)
	p.mu.Lock()
	first := end && !p.atEnd
	p.status, p.atEnd = next, end
	p.mu.Unlock()
	if first {
		if p.host.Observer != nil {
			p.host.Observer.PodGone(p.uid)
		}
		close(p.finished) // before the node is told, who then lets the object go
	}
	if changed || first {
		p.host.Changed(p, p.urgency(&next, ready, end))
	}
}

// urgency delays what will soon be overtaken.
func (p *Pod) urgency(s *corev1.PodStatus, ready, end bool) Urgency {
	switch {
	case end || ready || p.stage != active:
		return Now
	case s.Phase == corev1.PodPending:
		for _, c := range p.containers {
			if c.phase == waiting && c.reason != "" || c.term != nil {
				return Now
			}
		}
		return Later
	default:
		for _, c := range p.containers {
			if c.phase == ended || c.attempt > 0 {
				return Now
			}
		}
		return Soon
	}
}

func (p *Pod) observe(ready bool) {
	if p.host.Observer == nil || p.stage == stopped {
		return
	}
	s := State{Pod: p.pod, IP: p.ip(), Ready: ready && p.stage == active, Draining: p.stage == stopping}
	if s.IP == p.told.IP && s.Ready == p.told.Ready && s.Draining == p.told.Draining && p.told.Pod != nil {
		return
	}
	if !s.IP.IsValid() && p.told.Pod == nil {
		return // nothing to say yet
	}
	s.Stamps = p.stampCopy()
	p.told = s
	p.host.Observer.PodChanged(s)
}

func (p *Pod) ip() netip.Addr {
	if !p.sandbox.ok {
		return netip.Addr{}
	}
	ips := p.ips(p.sandbox.value, p.pod)
	if len(ips) == 0 {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(ips[0])
	return a
}

// compute builds the whole status; what others own in it is merged in when it is written.
func (p *Pod) compute(now metav1.Time) corev1.PodStatus {
	old := p.status
	s := corev1.PodStatus{
		ObservedGeneration: p.pod.Generation,
		StartTime:          &metav1.Time{Time: p.started.Truncate(time.Second)},
		QOSClass:           resource.QOS(p.pod),
		Reason:             p.failure.reason, Message: p.failure.message,
	}
	for _, ip := range p.host.HostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(p.host.HostIPs) > 0 {
		s.HostIP = p.host.HostIPs[0]
	}
	if p.sandbox.ok {
		for _, ip := range p.ips(p.sandbox.value, p.pod) {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
			s.PodIP = s.PodIPs[0].IP
		}
	}
	for _, c := range p.containers {
		cs := p.containerStatus(c)
		switch c.kind {
		case initial, sidecar:
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		case ephemeral:
			s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
		default:
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		}
	}
	s.Phase = p.phase(old.Phase)
	p.conditions(&s, old.Conditions, now)
	return s
}

func (p *Pod) phase(old corev1.PodPhase) corev1.PodPhase {
	if old == corev1.PodFailed || old == corev1.PodSucceeded {
		return old // terminal for good
	}
	if p.stage == stopped {
		return p.finalPhase()
	}
	if p.everRan() {
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// finalPhase is a stopped pod's: one that will run again after the node's stop has not ended.
func (p *Pod) finalPhase() corev1.PodPhase {
	again := p.stop.cause == stopShutdown && p.failure.reason == ""
	switch {
	case again && !p.everRan():
		return corev1.PodPending
	case again && p.pod.Spec.RestartPolicy != corev1.RestartPolicyNever:
		return corev1.PodRunning
	case p.failure.reason != "":
		return corev1.PodFailed
	}
	for _, c := range p.ofKind(regular) {
		if c.phase != ended || c.term.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

func (p *Pod) everRan() bool {
	return slices.ContainsFunc(p.ofKind(regular), func(c *container) bool {
		return c.phase == running || c.phase == ended || c.last != nil
	})
}

func (p *Pod) containerStatus(c *container) corev1.ContainerStatus {
	cs := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.imageID, RestartCount: int32(max(c.attempt, 0)),
		Ready: c.ready && c.hooked && c.phase == running,
	}
	if c.kind == initial {
		cs.Ready = c.phase == ended && c.term.ExitCode == 0
	}
	upNow := c.phase == running && c.up && c.hooked
	cs.Started = &upNow
	if c.id != "" {
		cs.ContainerID = containerPrefix + c.id
	}
	if c.last != nil {
		cs.LastTerminationState.Terminated = c.last
	}
	p.showState(c, &cs)
	return cs
}

func (p *Pod) showState(c *container, cs *corev1.ContainerStatus) {
	switch c.phase {
	case running:
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.began)}
	case ended:
		p.endedStatus(c, cs)
	case starting:
		if c.last != nil && c.attempt > 0 { // between two runs the end of the former one shows
			cs.RestartCount--
			cs.ContainerID = c.last.ContainerID
			cs.State.Terminated, cs.LastTerminationState.Terminated = c.last, nil
			return
		}
		cs.ContainerID = ""
		cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: p.idleReason(c)}
	case waiting:
		w := &corev1.ContainerStateWaiting{Reason: c.reason, Message: c.message}
		if w.Reason == "" {
			w.Reason, w.Message = p.idleReason(c), p.idleMessage()
		}
		cs.State.Waiting = w
	}
}

// endedStatus shows a container that waits for its next run as waiting, any other as terminated.
func (p *Pod) endedStatus(c *container, cs *corev1.ContainerStatus) {
	term := c.term
	if p.stage != active || p.over(c) || (c.delay == 0 && c.reason == "" && c.image.err == nil) {
		cs.State.Terminated = term
		return
	}
	w := &corev1.ContainerStateWaiting{Reason: c.reason, Message: c.message}
	if w.Reason == "" || (c.delay > 0 && c.reason == reasonRun) {
		w.Reason, w.Message = reasonCrash, p.crashMessage(c)
	}
	cs.State.Waiting = w
	cs.LastTerminationState.Terminated = term
}

func (p *Pod) idleReason(c *container) string {
	if len(p.pod.Spec.InitContainers) > 0 && (c.kind == regular || c.kind == ephemeral) {
		return reasonInitializing
	}
	if len(p.pod.Spec.InitContainers) > 0 && c != p.containers[0] {
		return reasonInitializing
	}
	return reasonCreating
}

// idleMessage says what holds up the pod as a whole.
func (p *Pod) idleMessage() string {
	var parts []string
	if p.sandbox.err != nil {
		parts = append(parts, p.sandbox.err.Error())
	}
	if p.volumes.err != nil {
		parts = append(parts, p.volumes.err.Error())
	}
	return strings.Join(parts, "; ")
}

func condition(list []corev1.PodCondition, kind corev1.PodConditionType) corev1.ConditionStatus {
	for i := range list {
		if list[i].Type == kind {
			return list[i].Status
		}
	}
	return corev1.ConditionUnknown
}

// conditions sets the ones the node owns. Others, readiness gates' among them, are left out here and
// stay as they are in the API.
func (p *Pod) conditions(s *corev1.PodStatus, old []corev1.PodCondition, now metav1.Time) {
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, ObservedGeneration: p.pod.Generation, LastTransitionTime: now}
		if !ok {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, reason, message
		}
		for i := range old {
			if old[i].Type == kind && old[i].Status == c.Status {
				c.LastTransitionTime = old[i].LastTransitionTime
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	set(corev1.PodScheduled, true, "", "")
	set(corev1.PodReadyToStartContainers, p.sandbox.ok && p.stage != stopped, "", "")
	notInit := p.lacking(p.initDone, initial, sidecar)
	set(corev1.PodInitialized, len(notInit) == 0, "ContainersNotInitialized",
		"containers with incomplete status: ["+strings.Join(notInit, " ")+"]")
	notReady := p.lacking(func(c *container) bool { return c.phase == running && c.ready && c.hooked }, regular, sidecar)
	reason, message := "ContainersNotReady", "containers with unready status: ["+strings.Join(notReady, " ")+"]"
	switch s.Phase { //nolint:exhaustive // the others are told by their containers
	case corev1.PodSucceeded:
		reason, message = "PodCompleted", ""
	case corev1.PodFailed:
		reason, message = "PodFailed", ""
	}
	containersReady := len(notReady)+len(notInit) == 0
	set(corev1.ContainersReady, containersReady, reason, message)
	gates := p.gatesClosed()
	if containersReady {
		reason, message = "ReadinessGatesNotReady", strings.Join(gates, ", ")
	}
	set(corev1.PodReady, containersReady && len(gates) == 0, reason, message)
}

func (p *Pod) initDone(c *container) bool {
	if c.kind == sidecar {
		return c.up && c.phase == running || p.ran()
	}
	return (c.phase == ended && c.term.ExitCode == 0) || (c.phase == waiting && p.ran())
}

func (p *Pod) lacking(ok func(*container) bool, kinds ...kind) []string {
	var names []string
	for _, c := range p.ofKind(kinds...) {
		if !ok(c) {
			names = append(names, c.spec.Name)
		}
	}
	return names
}

// gatesClosed tells the readiness gates whose condition is not true in the API.
func (p *Pod) gatesClosed() []string {
	var out []string
	for _, g := range p.pod.Spec.ReadinessGates {
		switch condition(p.pod.Status.Conditions, g.ConditionType) {
		case corev1.ConditionTrue:
		case corev1.ConditionUnknown:
			out = append(out, "corresponding condition of pod readiness gate \""+string(g.ConditionType)+"\" does not exist.")
		default:
			out = append(out, "the status of pod readiness gate \""+string(g.ConditionType)+"\" is not \"True\", but False")
		}
	}
	return out
}

// signalNumber reads SIGQUIT, QUIT or 3; anything else is SIGTERM.
func signalNumber(name string) int {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return n
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return int(sig)
	}
	if offset, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		if n, err := strconv.Atoi(offset); err == nil && n <= 30 {
			return 34 + n
		}
	}
	return int(unix.SIGTERM)
}

// Merge puts the machine's status into the API's, keeping conditions of other owners.
func Merge(api, own *corev1.PodStatus) *corev1.PodStatus {
	out := own.DeepCopy()
	for i := range api.Conditions {
		if !slices.ContainsFunc(own.Conditions, func(c corev1.PodCondition) bool { return c.Type == api.Conditions[i].Type }) {
			out.Conditions = append(out.Conditions, *api.Conditions[i].DeepCopy())
		}
	}
	for i := range out.Conditions { // what the scheduler said about binding stays
		if out.Conditions[i].Type != corev1.PodScheduled {
			continue
		}
		for j := range api.Conditions {
			if api.Conditions[j].Type == corev1.PodScheduled && api.Conditions[j].Status == corev1.ConditionTrue {
				out.Conditions[i] = *api.Conditions[j].DeepCopy()
			}
		}
	}
	out.NominatedNodeName = api.NominatedNodeName
	out.ResourceClaimStatuses = api.ResourceClaimStatuses
	return out
}
