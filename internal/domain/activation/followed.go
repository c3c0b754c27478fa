package activation

import (
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Finalizer keeps a ScaledObject until its target is let go; the name is KEDA's.
const Finalizer = "finalizer.keda.sh"

// A Target is an object that can be scaled.
type Target struct {
	Kind            kedav1alpha1.GroupVersionKindResource
	Namespace, Name string
	// By names the ScaledObject, of the same namespace.
	By string
}

// Followed is what was found in a ScaledObject when its triggers began to be asked.
type Followed struct {
	// Specs are the metrics of all triggers that work, in their order: a formula's triggers as they
	// are, before the composite metric takes their place.
	Specs []autoscalingv2.MetricSpec
	// Failed are the triggers that cannot be asked.
	Failed []FailedTrigger
}

// A FailedTrigger is one that has no source.
type FailedTrigger struct {
	Index      int
	Type, Name string
	// NotBuiltIn says that the type is known but not part of ebb.
	NotBuiltIn bool
	Err        error
}

// State is what a ScaledObject's status shows of decisions.
type State struct {
	// Conditions are those that decisions have an opinion about: Active and Fallback always, Ready when
	// triggers fail or writing did.
	Conditions       kedav1alpha1.Conditions
	LastActiveTime   *metav1.Time
	TriggersActivity map[string]kedav1alpha1.TriggerActivityStatus
	Health           map[string]kedav1alpha1.HealthStatus
}
