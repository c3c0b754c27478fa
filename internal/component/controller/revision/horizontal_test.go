package revision

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
)

// horizontal is a Revision of class hpa with one instance.
func horizontal(t *testing.T, annotations map[string]string) state {
	t.Helper()
	s := running(t)
	for key, value := range annotations {
		s.revision.Annotations["autoscaling.knative.dev/"+key] = value
	}
	s.revision.Annotations["autoscaling.knative.dev/class"] = string(scale.HPA)
	var err error
	if s.spec, err = controller.ScaleSpec(s.revision, s.settings); err != nil {
		t.Fatal(err)
	}
	s.autoscaler = render.PodAutoscaler(s.revision, autoscalingv1alpha1.ReachabilityReachable, string(s.spec.Class))
	s.autoscaler.UID, s.autoscaler.Generation = "pu", 1
	s.scaled = nil // somebody else's to scale
	return s
}

func TestClassHPAHasAnObjectOfItsOwn(t *testing.T) {
	s := horizontal(t, map[string]string{"metric": "memory", "target": "200", "min-scale": "2", "max-scale": "5", "window": "20s"})
	p := mustDecide(t, s)
	h := p.createHorizontal
	if h == nil || *h.Spec.MinReplicas != 2 || h.Spec.MaxReplicas != 5 || *h.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 20 {
		t.Fatalf("object %+v", h)
	}
	if m := h.Spec.Metrics[0].Resource; m.Name != "memory" || m.Target.AverageValue.String() != "200Mi" {
		t.Errorf("metric %+v", m)
	}
	disabled := autoscalingv2.DisabledPolicySelect
	h.Spec.Behavior.ScaleDown.SelectPolicy = &disabled // the API server fills in more
	s.horizontal = h
	if p := mustDecide(t, s); p.createHorizontal != nil || p.updateHorizontal != nil {
		t.Error("an object as wanted is written")
	}
	s.spec.Max = 9
	if p := mustDecide(t, s); p.updateHorizontal == nil || p.updateHorizontal.Spec.MaxReplicas != 9 {
		t.Errorf("a changed bound writes %+v", p.updateHorizontal)
	}
	s.spec.Class = scale.KPA
	if p := mustDecide(t, s); p.deleteHorizontal == nil {
		t.Error("the object of a revision that changed its class stays")
	}
}

func TestClassHPAIsActiveWithWhatKubernetesDecided(t *testing.T) {
	s := horizontal(t, nil)
	s.horizontal = mustDecide(t, s).createHorizontal
	s.horizontal.Status = autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: 1, DesiredReplicas: 3}
	p := mustDecide(t, s)
	if st := p.status; *st.ActualReplicas != 1 || *st.DesiredReplicas != 3 || !p.after.IsReady() {
		t.Errorf("status %+v", st)
	}
	if !p.autoscalerStatus.IsActive() || !p.autoscalerStatus.IsScaleTargetInitialized() {
		t.Errorf("pod autoscaler %+v", p.autoscalerStatus)
	}
	if p.spec.Class != scale.HPA {
		t.Error("the scaler is not told whose it is")
	}
	if m := s.horizontal.Spec.Metrics; m != nil {
		t.Errorf("without a target it aims at %+v, want Kubernetes' default", m)
	}
	if got := s.autoscaler.Annotations["autoscaling.knative.dev/metric"]; got != "cpu" {
		t.Errorf("metric %q, want cpu", got)
	}
}

func TestAnObjectThatIsAnothersIsTold(t *testing.T) {
	s := horizontal(t, nil)
	s.horizontal = mustDecide(t, s).createHorizontal
	s.horizontal.OwnerReferences = nil
	if p := mustDecide(t, s); !p.autoscalerStatus.IsInactive() || p.updateHorizontal != nil {
		t.Errorf("pod autoscaler %+v", p.autoscalerStatus)
	}
}
