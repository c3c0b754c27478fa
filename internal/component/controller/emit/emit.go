// Package emit tells what happens to KEDA's objects: one place makes the Kubernetes event and hands
// it on to whoever delivers CloudEvents.
package emit

import (
	"strings"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
)

// Reporter is the name that KEDA's events carry.
const Reporter = "keda-operator"

// How many bytes the note and the action of a Kubernetes event may have.
const (
	longestNote   = 1024
	longestAction = 128
)

// An Emitter records Kubernetes events and passes all it is told to others.
type Emitter struct {
	events events.EventRecorder
	others []controller.Emitter
}

// New returns an Emitter that records by a manager and tells others, too.
func New(m ctrl.Manager, others ...controller.Emitter) *Emitter {
	return Recording(m.GetEventRecorder(Reporter), others...)
}

// Recording returns an Emitter that records by r and tells others, too.
func Recording(r events.EventRecorder, others ...controller.Emitter) *Emitter {
	return &Emitter{events: r, others: others}
}

// Emit implements controller.Emitter. The action is the message, as it is with KEDA: of events that
// differ in nothing else, Kubernetes keeps the first.
func (e *Emitter) Emit(object client.Object, eventType string, cloudEventType kedaeventingv1alpha1.CloudEventType, reason, message string) {
	e.events.Eventf(object, nil, eventType, reason, cut(message, longestAction), "%s", cut(message, longestNote))
	for _, other := range e.others {
		other.Emit(object, eventType, cloudEventType, reason, message)
	}
}

// cut shortens text to at most n bytes of whole characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}
