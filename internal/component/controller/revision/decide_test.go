package revision

import (
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func revisionFixture() *servingv1.Revision {
	cfg := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{
		Name: "hello", Namespace: "shop", UID: "cu", Generation: 1,
		Annotations: map[string]string{serving.RoutesAnnotationKey: "hello"},
	}}
	cfg.Spec.Template.Spec.Containers = []corev1.Container{{Name: "user-container", Image: "example.com/hello:v1"}}
	rev := render.Revision(cfg, noon)
	rev.UID, rev.Generation = "ru", 1
	return rev
}

// fresh is a Revision nothing was done about.
func fresh(t *testing.T) state {
	t.Helper()
	defaults, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := state{revision: revisionFixture(), settings: defaults}
	if s.spec, err = controller.ScaleSpec(s.revision, defaults); err != nil {
		t.Fatal(err)
	}
	return s
}

// deployed is a Revision with pinned images, a Deployment on its way and no instance.
func deployed(t *testing.T) state {
	t.Helper()
	s := fresh(t)
	s.digests = digests{done: true, containers: []servingv1.ContainerStatus{{Name: "user-container", ImageDigest: "example.com/hello@sha256:abc"}}}
	p := mustDecide(t, s)
	s.revision = p.after
	s.deployment = p.createDeployment
	s.deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: "True"}}
	s.autoscaler = p.createAutoscaler
	s.autoscaler.Status = *p.autoscalerStatus
	s.scaled = &controller.ScaleState{Desired: 1}
	return s
}

// running is one whose instance came up.
func running(t *testing.T) state {
	t.Helper()
	s := deployed(t)
	s.ready = 1
	p := mustDecide(t, s)
	s.revision, s.autoscaler.Status = p.after, *p.autoscalerStatus
	return s
}

func mustDecide(t *testing.T, s state) plan {
	t.Helper()
	p, err := decide(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pod(status corev1.ContainerStatus) []corev1.Pod {
	return []corev1.Pod{{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}}}}
}

func waiting(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "user-container", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func TestConditions(t *testing.T) {
	late := func(s *state) {
		s.deployment.Status.Conditions[0].Status = "False"
		s.deployment.Status.Conditions[0].Reason = "ProgressDeadlineExceeded"
		s.deployment.Status.Conditions[0].Message = "too late"
	}
	tests := map[string]struct {
		from                     func(*testing.T) state
		change                   func(*state)
		ready, active, resources string
	}{
		"images being looked up": {fresh, func(*state) {}, "Unknown ResolvingDigests", "Unknown ", "Unknown ResolvingDigests"},
		"an image that is missing": {fresh, func(s *state) {
			s.digests.err = errors.New("no such image")
		}, "False ContainerMissing", "Unknown ", "Unknown "},
		"a deployment on its way":  {deployed, func(*state) {}, "Unknown Deploying", "Unknown Queued", "Unknown Deploying"},
		"an instance that came up": {deployed, func(s *state) { s.ready = 1 }, "True ", "True ", "True "},
		"fewer than the initial scale": {deployed, func(s *state) {
			s.spec.Initial, s.ready = 3, 2
		}, "Unknown Deploying", "Unknown Queued", "Unknown Deploying"},
		"an initial scale of none": {deployed, func(s *state) {
			s.spec.Initial, s.scaled = 0, &controller.ScaleState{}
		}, "True ", "False NoTraffic", "True "},
		"scaled to zero": {running, func(s *state) {
			s.ready, s.scaled = 0, &controller.ScaleState{}
		}, "True ", "False NoTraffic", "True "},
		"woken, no instance yet": {running, func(s *state) { s.ready = 0 }, "True ", "Unknown Queued", "True "},
		"nothing known after a restart of ebb": {running, func(s *state) {
			s.ready, s.scaled = 0, nil
		}, "True ", "Unknown Queued", "True "},
		"given up on the way to the initial scale": {deployed, func(s *state) {
			s.scaled = &controller.ScaleState{TimedOut: true}
		}, "False ProgressDeadlineExceeded", "False TimedOut", "False ProgressDeadlineExceeded"},
		"a pod that fits nowhere": {deployed, func(s *state) {
			s.pods = []corev1.Pod{{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Reason: "Unschedulable", Message: "100% full"}}}}}
		}, "False Unschedulable", "Unknown Queued", "False Unschedulable"},
		"an image that cannot be pulled, at first": {deployed, func(s *state) {
			s.pods = pod(waiting("ImagePullBackOff", "denied"))
		}, "Unknown ImagePullBackOff", "Unknown Queued", "Unknown Deploying"},
		"an image that cannot be pulled, after the deadline": {deployed, func(s *state) {
			late(s)
			s.pods = pod(waiting("ImagePullBackOff", "denied"))
		}, "False ImagePullBackOff", "Unknown Queued", "False ImagePullBackOff"},
		"an init container that fails, after the deadline": {deployed, func(s *state) {
			late(s)
			s.pods = pod(waiting("PodInitializing", ""))
			s.pods[0].Status.InitContainerStatuses = []corev1.ContainerStatus{waiting("CrashLoopBackOff", "back-off")}
		}, "False CrashLoopBackOff", "Unknown Queued", "False CrashLoopBackOff"},
		"a pod that fits nowhere yet, where nodes come when needed": {deployed, func(s *state) {
			s.settings.Deployment.PodIsAlwaysSchedulable = true
			s.pods = []corev1.Pod{{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Reason: "Unschedulable", Message: "100% full"}}}}}
		}, "Unknown Deploying", "Unknown Queued", "Unknown Deploying"},
		"no progress in time": {deployed, late, "False ProgressDeadlineExceeded", "Unknown Queued", "False ProgressDeadlineExceeded"},
		"a container that exits": {deployed, func(s *state) {
			c := waiting("CrashLoopBackOff", "back-off")
			c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 5, Message: "boom"}
			s.pods = pod(c)
		}, "False ExitCode5", "Unknown Queued", "Unknown Deploying"},
		"pods that are refused": {deployed, func(s *state) {
			s.deployment.Status.Conditions = append(s.deployment.Status.Conditions,
				appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: "True", Reason: "FailedCreate", Message: "over quota"})
		}, "False FailedCreate", "Unknown Queued", "False FailedCreate"},
		"a deployment that is another's": {deployed, func(s *state) {
			s.deployment.OwnerReferences = nil
		}, "False NotOwned", "Unknown Queued", "False NotOwned"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.from(t)
			tt.change(&s)
			p := mustDecide(t, s)
			for condition, want := range map[apis.ConditionType]string{
				"Ready": tt.ready, "Active": tt.active, "ResourcesAvailable": tt.resources,
			} {
				got := "Unknown "
				if c := p.status.GetCondition(condition); c != nil {
					got = string(c.Status) + " " + c.Reason
				}
				if got != want {
					t.Errorf("%s is %q, want %q (%+v)", condition, got, want, p.status.Conditions)
				}
			}
		})
	}
}

func TestReplicasStayTheAutoscalers(t *testing.T) {
	s := running(t)
	seven := int32(7)
	s.deployment.Spec.Replicas = &seven
	if p := mustDecide(t, s); p.updateDeployment != nil {
		t.Error("a deployment as wanted is written")
	}
	s.settings.Deployment.ProgressDeadline = time.Minute
	p := mustDecide(t, s)
	if p.updateDeployment == nil || *p.updateDeployment.Spec.Replicas != 7 || *p.updateDeployment.Spec.ProgressDeadlineSeconds != 60 {
		t.Errorf("update %+v, want the new deadline and 7 replicas", p.updateDeployment)
	}
}

func TestScalerIsToldWhatItNeeds(t *testing.T) {
	s := running(t)
	s.revision.SetRoutingState(servingv1.RoutingStateReserve, noon)
	p := mustDecide(t, s)
	if p.spec == nil || p.spec.Reachable || !p.spec.Initialized || p.spec.Before != "Active" {
		t.Errorf("spec %+v, want unreachable, initialized, active before", p.spec)
	}
	if p := mustDecide(t, fresh(t)); p.spec != nil {
		t.Error("a revision without a deployment is scaled")
	}
}

func TestReplicasAreShown(t *testing.T) {
	s := running(t)
	s.ready, s.scaled = 2, &controller.ScaleState{Desired: 3}
	st := mustDecide(t, s).status
	if *st.ActualReplicas != 2 || *st.DesiredReplicas != 3 {
		t.Errorf("replicas %d of %d, want 2 of 3", *st.ActualReplicas, *st.DesiredReplicas)
	}
	s.autoscaler.Status.DesiredScale = st.DesiredReplicas
	s.scaled = nil
	if st := mustDecide(t, s).status; *st.DesiredReplicas != 3 {
		t.Errorf("desired %d after a restart, want 3 kept", *st.DesiredReplicas)
	}
}

func TestDecidingTwiceChangesNothing(t *testing.T) {
	s := running(t)
	p := mustDecide(t, s)
	if p.autoscalerStatus != nil || p.updateAutoscaler != nil || p.updateDeployment != nil {
		t.Errorf("plan %+v, want nothing to write", p)
	}
	for i, c := range p.status.Conditions {
		if !c.LastTransitionTime.Inner.Equal(&s.revision.Status.Conditions[i].LastTransitionTime.Inner) {
			t.Errorf("%s has a new time though it stayed", c.Type)
		}
	}
}
