package controller

import (
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// An Emitter tells people and machines what happened to an object of KEDA's: by a Kubernetes event,
// and by a CloudEvent to those who subscribed to its type.
type Emitter interface {
	// Emit tells it, and does not block. eventType is Kubernetes' "Normal" or "Warning"; without a
	// cloudEventType only people are told.
	Emit(object client.Object, eventType string, cloudEventType kedaeventingv1alpha1.CloudEventType, reason, message string)
}
