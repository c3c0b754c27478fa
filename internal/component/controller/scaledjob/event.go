package scaledjob

import (
	"fmt"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/eventreason"
	corev1 "k8s.io/api/core/v1"
)

// A happening is an event to be told.
type happening struct {
	kind            string
	cloud           kedaeventingv1alpha1.CloudEventType
	reason, message string
}

// What happens now and then.
var (
	ready = happening{
		corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledJobReadyType, eventreason.ScaledJobReady, "ScaledJob is ready for scaling",
	}
	pausing = happening{
		corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledJobPausedType,
		eventreason.ScaledJobPaused, kedav1alpha1.ScaledJobConditionPausedMessage,
	}
	unpausing = happening{
		corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledJobUnpausedType,
		eventreason.ScaledJobUnpaused, kedav1alpha1.ScaledJobConditionUnpausedMessage,
	}
	deleted = happening{
		corev1.EventTypeWarning, kedaeventingv1alpha1.ScaledJobRemovedType, eventreason.ScaledJobDeleted, "ScaledJob was deleted",
	}
)

func checkFailed(message string) happening {
	return happening{corev1.EventTypeWarning, kedaeventingv1alpha1.ScaledJobFailedType, eventreason.ScaledJobCheckFailed, message}
}

func updateFailed(err error) happening {
	return happening{corev1.EventTypeWarning, kedaeventingv1alpha1.ScaledJobFailedType, eventreason.ScaledJobUpdateFailed, err.Error()}
}

func cleanupStarted(n int) happening {
	return happening{
		corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledJobRolloutCleanupStartedType, eventreason.ScaledJobRolloutCleanupStarted,
		fmt.Sprintf("Deleting %d jobs owned by the previous version of the scaledJob", n),
	}
}

func cleanupCompleted(n int) happening {
	return happening{
		corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledJobRolloutCleanupCompletedType, eventreason.ScaledJobRolloutCleanupCompleted,
		fmt.Sprintf("Deleted %d jobs owned by the previous version of the scaledJob", n),
	}
}

func cleanupFailed(name string, err error) happening {
	return happening{
		corev1.EventTypeWarning, kedaeventingv1alpha1.ScaledJobRolloutCleanupFailedType, eventreason.ScaledJobRolloutCleanupFailed,
		fmt.Sprintf("Failed to delete job %s: %v", name, err),
	}
}

// tellReady tells a problem once, and when it is over. What the engine says of triggers that come and go
// is not told here.
func tellReady(was, is kedav1alpha1.Condition, p *problem) []happening {
	switch {
	case was == is:
		return nil
	case p != nil:
		return []happening{checkFailed(p.message)}
	case is.IsTrue() && !was.IsTrue() && (was.Reason == "" || was.Reason == reasonFailed):
		return []happening{ready}
	}
	return nil
}
