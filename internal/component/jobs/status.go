package jobs

import (
	"fmt"
	"strings"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/eventreason"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/domain/activation"
)

// What conditions say, in KEDA's words.
const (
	reasonReady   = "ScaledJobReady"
	messageReady  = "ScaledJob is defined correctly and is ready for scaling"
	reasonSome    = "PartialTriggerError"
	messageSome   = "Some triggers defined in ScaledJob are not working correctly"
	reasonAll     = "TriggerError"
	messageAll    = "Triggers defined in ScaledJob are not working correctly"
	reasonActive  = "ScalerActive"
	messageActive = "Scaling is performed because triggers are active"
	reasonIdle    = "ScalerNotActive"
	messageIdle   = "Scaling is not performed because triggers are not active"
	reasonLacking = "TriggerNotBuiltIn"
)

// conditions are what a judgement has to say of the object; err is why Jobs could not be made.
func (j *judgement) conditions(err error) kedav1alpha1.Conditions {
	ready := kedav1alpha1.Condition{
		Type: kedav1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: reasonReady, Message: messageReady,
	}
	lacking := lack(j.failed)
	switch {
	case err != nil:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, eventreason.KEDAJobCreateFailed, err.Error()
	case lacking != "":
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, reasonLacking, lacking
	case j.failing && j.demand.Active:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionUnknown, reasonSome, messageSome
	case j.failing:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, reasonAll, messageAll
	}
	active := kedav1alpha1.Condition{
		Type: kedav1alpha1.ConditionActive, Status: metav1.ConditionFalse, Reason: reasonIdle, Message: messageIdle,
	}
	if j.demand.Active {
		active.Status, active.Reason, active.Message = metav1.ConditionTrue, reasonActive, messageActive
	}
	return kedav1alpha1.Conditions{ready, active}
}

// lack names the triggers that are not built in; empty if all are.
func lack(failed []activation.FailedTrigger) string {
	var kinds []string
	for _, f := range failed {
		if f.NotBuiltIn {
			kinds = append(kinds, fmt.Sprintf("%q (trigger %d)", f.Type, f.Index))
		}
	}
	if len(kinds) == 0 {
		return ""
	}
	return fmt.Sprintf("triggers that are not built in: %s; a trigger of type \"external\" can stand for each, the others work",
		strings.Join(kinds, ", "))
}

// activity lists the metrics and tells which are active.
func (j *judgement) activity() ([]string, map[string]kedav1alpha1.TriggerActivityStatus) {
	var names []string
	out := map[string]kedav1alpha1.TriggerActivityStatus{}
	for _, t := range j.seen.Triggers {
		for _, target := range t.Targets {
			names = append(names, target.Metric)
			out[target.Metric] = kedav1alpha1.TriggerActivityStatus{}
		}
		for _, r := range t.Readings {
			if _, known := out[r.Metric]; known {
				out[r.Metric] = kedav1alpha1.TriggerActivityStatus{IsActive: r.Active}
			}
		}
	}
	return names, out
}

// unasked is the status of an object none of whose triggers can be asked; nil if any can.
func (o *object) unasked() *kedav1alpha1.ScaledJobStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.scaled == nil || len(o.failed) < len(o.scaled.Spec.Triggers) {
		return nil
	}
	j := &judgement{failed: o.failed, failing: true}
	status := *o.status.DeepCopy()
	status.Conditions = j.conditions(nil)
	return &status
}
