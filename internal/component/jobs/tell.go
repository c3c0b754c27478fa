package jobs

import (
	"fmt"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/eventreason"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

// troubleAgain is how often a trigger that goes on failing has an event.
const troubleAgain = 10 * time.Minute

// longest is how many bytes an event's note may have.
const longest = 1024

// trouble is that a trigger fails; told is when an event last said so.
type trouble struct{ told time.Time }

func (e *Engine) tell(scaled *kedav1alpha1.ScaledJob, kind, reason, action, message string) {
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "")
	}
	e.events.Eventf(scaled, nil, kind, reason, action, "%s", message)
}

// tellStarted says which triggers are asked, when that begins or changes.
func (e *Engine) tellStarted(scaled *kedav1alpha1.ScaledJob, failed []activation.FailedTrigger, begun bool) {
	without := map[int]activation.FailedTrigger{}
	for _, f := range failed {
		without[f.Index] = f
	}
	for i := range scaled.Spec.Triggers {
		if f, fails := without[i]; fails {
			e.tell(scaled, corev1.EventTypeWarning, eventreason.KEDAScalerFailed, eventreason.KEDAScalerFailed, message(f))
		} else if begun {
			e.tell(scaled, corev1.EventTypeNormal, eventreason.KEDAScalersStarted, eventreason.KEDAScalersStarted,
				fmt.Sprintf("Scaler %s is built", scaled.Spec.Triggers[i].Type))
		}
	}
	if begun {
		e.tell(scaled, corev1.EventTypeNormal, eventreason.KEDAScalersStarted, "ScalersWatchStarted", "Started scalers watch")
	}
}

func message(f activation.FailedTrigger) string {
	if f.Err != nil {
		return f.Err.Error()
	}
	return fmt.Sprintf("trigger %d has type %q, which is not built in", f.Index, f.Type)
}

// tellFailed says why nothing can be asked.
func (e *Engine) tellFailed(scaled *kedav1alpha1.ScaledJob, failed []activation.FailedTrigger, err error) {
	e.metrics.failed(scaled.Namespace, scaled.Name)
	if len(failed) == 0 {
		e.tell(scaled, corev1.EventTypeWarning, eventreason.KEDAScalerFailed, eventreason.KEDAScalerFailed, err.Error())
	}
	for _, f := range failed {
		e.tell(scaled, corev1.EventTypeWarning, eventreason.KEDAScalerFailed, eventreason.KEDAScalerFailed, message(f))
	}
}

func (e *Engine) tellStopped(scaled *kedav1alpha1.ScaledJob) {
	e.tell(scaled, corev1.EventTypeNormal, eventreason.KEDAScalersStopped, eventreason.KEDAScalersStopped, "Stopped scalers watch")
}

// tellTroubles counts the triggers that failed, and says so when it begins and now and then.
func (e *Engine) tellTroubles(o *object, j *judgement) {
	e.metrics.known(o.key.Namespace, o.key.Name)
	for _, t := range j.seen.Triggers {
		if t.Err != nil {
			e.metrics.failed(o.key.Namespace, o.key.Name)
		}
		if o.troubled(t, time.Now()) {
			e.tell(j.scaled, corev1.EventTypeWarning, eventreason.KEDAScalerFailed, eventreason.KEDAScalerFailed, t.Err.Error())
		}
	}
}

// troubled tells whether it is time to say that a trigger fails.
func (o *object) troubled(t rules.Answer, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.Err == nil {
		delete(o.troubles, t.Index)
		return false
	}
	if last, fails := o.troubles[t.Index]; fails && now.Sub(last.told) < troubleAgain {
		return false
	}
	o.troubles[t.Index] = trouble{told: now}
	return true
}

func (e *Engine) tellActive(scaled *kedav1alpha1.ScaledJob, active bool) {
	if active {
		e.tell(scaled, corev1.EventTypeNormal, eventreason.ScaledJobActive, eventreason.ScaledJobActive, messageActive)
		return
	}
	e.tell(scaled, corev1.EventTypeNormal, eventreason.ScaledJobInactive, eventreason.ScaledJobInactive, messageIdle)
}

// tellCreated says how many Jobs were made, and why not more.
func (e *Engine) tellCreated(scaled *kedav1alpha1.ScaledJob, created int, err error) {
	e.metrics.made(created, err)
	if err != nil {
		e.tell(scaled, corev1.EventTypeWarning, eventreason.KEDAJobCreateFailed, eventreason.KEDAJobCreateFailed,
			fmt.Sprintf("Failed to create job %s-: %v", scaled.Name, err))
	}
	if created > 0 {
		e.tell(scaled, corev1.EventTypeNormal, eventreason.KEDAJobsCreated, eventreason.KEDAJobsCreated,
			fmt.Sprintf("Created %d jobs", created))
	}
}
