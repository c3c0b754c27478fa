package emit

import (
	"strings"
	"testing"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type other struct{ messages []string }

func (o *other) Emit(_ client.Object, _ string, kind kedaeventingv1alpha1.CloudEventType, reason, message string) {
	o.messages = append(o.messages, string(kind)+" "+reason+" "+message)
}

func TestAnEventIsRecordedAndHandedOn(t *testing.T) {
	recorder, next := events.NewFakeRecorder(2), &other{}
	e := Recording(recorder, next)
	e.Emit(&kedav1alpha1.ScaledObject{}, "Warning", kedaeventingv1alpha1.ScaledObjectFailedType, "Broken", "100% of it")
	if got := <-recorder.Events; got != "Warning Broken 100% of it" {
		t.Errorf("recorded %q", got)
	}
	if got := next.messages[0]; got != "keda.scaledobject.failed.v1 Broken 100% of it" {
		t.Errorf("handed on %q", got)
	}
	long := strings.Repeat("x", longestNote-1) + "éé"
	e.Emit(&kedav1alpha1.ScaledObject{}, "Normal", "", "Long", long)
	if got := strings.TrimPrefix(<-recorder.Events, "Normal Long "); got != long[:longestNote-1] {
		t.Errorf("recorded %d bytes, want %d: the API takes no more than %d, in whole characters", len(got), longestNote-1, longestNote)
	}
	if !strings.HasSuffix(next.messages[1], long) {
		t.Error("what is handed on is cut, too")
	}
}
