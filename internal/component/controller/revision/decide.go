package revision

import (
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// state is all that a decision about a Revision rests on.
type state struct {
	revision   *servingv1.Revision
	deployment *appsv1.Deployment                     // nil if there is none
	autoscaler *autoscalingv1alpha1.PodAutoscaler     // nil if there is none
	horizontal *autoscalingv2.HorizontalPodAutoscaler // nil if there is none
	pods       []corev1.Pod                           // of the Deployment; looked at only while none is ready
	digests    digests
	scaled     *controller.ScaleState // nil while nothing was decided
	ready      int                    // instances ready now
	settings   *settings.Settings
	spec       scale.Spec
}

// plan is what is to be done.
type plan struct {
	createDeployment *appsv1.Deployment
	updateDeployment *appsv1.Deployment
	createAutoscaler *autoscalingv1alpha1.PodAutoscaler
	updateAutoscaler *autoscalingv1alpha1.PodAutoscaler
	autoscalerStatus *autoscalingv1alpha1.PodAutoscalerStatus // nil when unchanged
	createHorizontal *autoscalingv2.HorizontalPodAutoscaler
	updateHorizontal *autoscalingv2.HorizontalPodAutoscaler
	deleteHorizontal *autoscalingv2.HorizontalPodAutoscaler
	spec             *scale.Spec               // what the scaler is told; nil for nothing yet
	after            *servingv1.Revision       // the Revision with its new status
	status           *servingv1.RevisionStatus // within after
}

// decide makes the plan, in upstream's order: digests, Deployment, PodAutoscaler.
func decide(s state) (plan, error) {
	after := s.revision.DeepCopy()
	p := plan{after: after, status: &after.Status}
	controller.Begin(after)
	defer controller.Finish(after, s.revision)
	p.status.LogURL = s.settings.Observability.LogURL(string(s.revision.UID))
	if !decideDigests(s, &p) {
		return p, nil
	}
	owned, err := decideDeployment(s, &p)
	if err != nil || !owned {
		return p, err
	}
	decideAutoscaler(s, &p)
	return p, nil
}

// decideDigests tells whether the images are known, so that pods may be made.
func decideDigests(s state, p *plan) bool {
	switch {
	case resolved(s.revision):
		return true
	case s.digests.err != nil:
		p.status.MarkContainerHealthyFalse(servingv1.ReasonContainerMissing, s.digests.err.Error())
		return false
	case !s.digests.done:
		p.status.MarkResourcesAvailableUnknown(servingv1.ReasonResolvingDigests, "")
		return false
	}
	p.status.ContainerStatuses = s.digests.containers
	p.status.InitContainerStatuses = s.digests.initContainers
	return true
}

// resolved tells whether every container's image has been looked up.
func resolved(rev *servingv1.Revision) bool {
	return len(rev.Status.ContainerStatuses)+len(rev.Status.InitContainerStatuses) ==
		len(rev.Spec.Containers)+len(rev.Spec.InitContainers)
}

// decideDeployment tells whether the Deployment is, or will be, the Revision's.
func decideDeployment(s state, p *plan) (bool, error) {
	want, err := render.Deployment(p.after, render.Cluster{
		Deployment: s.settings.Deployment, Defaults: s.settings.Defaults, Features: s.settings.Features,
	}, s.spec.Initial)
	if err != nil {
		return false, err
	}
	have := s.deployment
	if have == nil {
		p.createDeployment = want
		p.status.MarkResourcesAvailableUnknown(servingv1.ReasonDeploying, "")
		p.status.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
		return true, nil
	}
	if !metav1.IsControlledBy(have, s.revision) {
		p.status.MarkResourcesAvailableFalse(servingv1.ReasonNotOwned, servingv1.ResourceNotOwnedMessage("Deployment", have.Name))
		return false, nil
	}
	const hash = serving.RevisionDeploymentHashLabelKey
	if have.Labels[hash] != want.Labels[hash] {
		p.updateDeployment = have.DeepCopy()
		p.updateDeployment.Labels, p.updateDeployment.Annotations = want.Labels, merged(have.Annotations, want.Annotations)
		want.Spec.Replicas = have.Spec.Replicas // the autoscaler's
		want.Spec.Selector = have.Spec.Selector // cannot change
		p.updateDeployment.Spec = want.Spec
	}
	p.status.PropagateDeploymentStatus(&have.Status)
	if have.Spec.Replicas != nil && *have.Spec.Replicas > 0 && have.Status.AvailableReplicas == 0 && s.ready == 0 {
		diagnose(s, p)
	}
	if have.Status.ReadyReplicas > 0 || s.ready > 0 {
		p.status.MarkContainerHealthyTrue()
	}
	return true, nil
}

// merged keeps what others noted on a Deployment (its revision counter, say).
func merged(have, want map[string]string) map[string]string {
	out := make(map[string]string, len(have)+len(want))
	maps.Copy(out, have)
	maps.Copy(out, want)
	return out
}

// decideAutoscaler works out the PodAutoscaler and takes its status over into the Revision's.
func decideAutoscaler(s state, p *plan) {
	reach := reachability(s, p.status)
	want, have := render.PodAutoscaler(s.revision, reach, string(s.spec.Class)), s.autoscaler
	before := want
	switch {
	case have == nil:
		p.createAutoscaler = want
	case !metav1.IsControlledBy(have, s.revision):
		p.status.MarkResourcesAvailableFalse(servingv1.ReasonNotOwned, servingv1.ResourceNotOwnedMessage("PodAutoscaler", have.Name))
		return
	default:
		before = have
		p.updateAutoscaler = changedAutoscaler(want, have)
	}
	after := before.DeepCopy()
	if s.spec.Class == scale.HPA {
		horizontalStatus(s, &after.Status)
	} else {
		scaleStatus(s, &after.Status)
	}
	decideHorizontal(s, after, p)
	controller.Finish(after, before)
	if have == nil || !equality.Semantic.DeepEqual(have.Status, after.Status) {
		p.autoscalerStatus = &after.Status
	}
	p.status.PropagateAutoscalerStatus(&after.Status)
	tellTrouble(s, p)
	spec := s.spec
	spec.Reachable = reach != autoscalingv1alpha1.ReachabilityUnreachable
	spec.Initialized = after.Status.IsScaleTargetInitialized()
	spec.Before = activity(have)
	p.spec = &spec
}

// changedAutoscaler returns the PodAutoscaler to write, or nil when it already is as wanted.
func changedAutoscaler(want, have *autoscalingv1alpha1.PodAutoscaler) *autoscalingv1alpha1.PodAutoscaler {
	out := have.DeepCopy()
	out.Spec, out.Annotations, out.Labels = want.Spec, want.Annotations, want.Labels
	if equality.Semantic.DeepEqual(out, have) {
		return nil
	}
	return out
}

// tellTrouble says, while all is still unknown, what keeps the pods from starting: the verdict itself
// waits until upstream too would give one.
func tellTrouble(s state, p *plan) {
	if !p.status.GetCondition(servingv1.RevisionConditionReady).IsUnknown() || s.ready > 0 || s.deployment == nil {
		return
	}
	if p.status.GetCondition(servingv1.RevisionConditionContainerHealthy).IsUnknown() {
		p.status.MarkContainerHealthyUnknown(servingv1.ReasonDeploying, "")
	}
	for i := range s.pods {
		if reason, message, ok := stuck(&s.pods[i]); ok {
			p.status.MarkContainerHealthyUnknown(reason, message)
			return
		}
	}
}

// reachability is upstream's: a failed revision without instances must not be kept up, nor one that
// no route leads to.
func reachability(s state, status *servingv1.RevisionStatus) autoscalingv1alpha1.ReachabilityType {
	failed := status.GetCondition(servingv1.RevisionConditionResourcesAvailable).IsFalse() ||
		status.GetCondition(servingv1.RevisionConditionContainerHealthy).IsFalse()
	if d := s.deployment; failed && d != nil && d.Spec.Replicas != nil && *d.Spec.Replicas > 0 && d.Status.ReadyReplicas == 0 && s.ready == 0 {
		return autoscalingv1alpha1.ReachabilityUnreachable
	}
	switch s.revision.GetRoutingState() {
	case servingv1.RoutingStateActive:
		return autoscalingv1alpha1.ReachabilityReachable
	case servingv1.RoutingStateReserve:
		return autoscalingv1alpha1.ReachabilityUnreachable
	case servingv1.RoutingStatePending, servingv1.RoutingStateUnset:
	}
	return autoscalingv1alpha1.ReachabilityUnknown
}

// activity is the last published Active condition in the scaler's words.
func activity(pa *autoscalingv1alpha1.PodAutoscaler) scale.Activity {
	switch {
	case pa == nil || pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive) == nil:
		return ""
	case pa.Status.IsActive():
		return scale.Active
	case pa.Status.IsInactive():
		return scale.Inactive
	}
	return scale.Activating
}

// diagnose takes the reason for having no instance from the pods, as upstream does: a pod that fits
// nowhere and a container that exited are failures at once, one that waits only after the deadline.
func diagnose(s state, p *plan) {
	for i := range s.pods {
		pod := &s.pods[i]
		if !s.settings.Deployment.PodIsAlwaysSchedulable {
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
					controller.Manage(p.after).MarkFalse(servingv1.RevisionConditionResourcesAvailable, c.Reason, "%s", c.Message)
				}
			}
		}
		for _, c := range pod.Status.ContainerStatuses {
			if t := c.LastTerminationState.Terminated; t != nil {
				p.status.MarkContainerHealthyFalse(servingv1.ExitCodeReason(t.ExitCode), exitMessage(t))
				return
			}
			if w := c.State.Waiting; w != nil && deadlineExceeded(s.deployment) {
				reason, message := waitsFor(pod, w)
				controller.Manage(p.after).MarkFalse(servingv1.RevisionConditionResourcesAvailable, reason, "%s", message)
				return
			}
		}
	}
}

// waitsFor is why a container does not start: where it waits for the init containers, the reason is
// theirs.
func waitsFor(pod *corev1.Pod, w *corev1.ContainerStateWaiting) (reason, message string) {
	if w.Reason == "PodInitializing" {
		if reason, message, ok := stuck(pod); ok {
			return reason, message
		}
	}
	return w.Reason, w.Message
}

func exitMessage(t *corev1.ContainerStateTerminated) string {
	message := t.Message
	if t.ExitCode == 0 && message == "" {
		message = "container exited with no error"
	}
	return servingv1.RevisionContainerExitingMessage(message)
}

// stuck tells why a pod does not come up, if it shows more than the ordinary steps.
func stuck(pod *corev1.Pod) (reason, message string, ok bool) {
	statuses := append(append([]corev1.ContainerStatus(nil), pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
	for _, c := range statuses {
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return w.Reason, fmt.Sprintf("Container %q is waiting: %s", c.Name, w.Message), true
		}
	}
	return "", "", false
}

func deadlineExceeded(d *appsv1.Deployment) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == servingv1.ReasonProgressDeadlineExceeded {
			return true
		}
	}
	return false
}
