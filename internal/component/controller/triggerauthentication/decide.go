package triggerauthentication

import (
	"fmt"
	"slices"
	"strings"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// soon is when the cache has likely caught up with a write.
const soon = 50 * time.Millisecond

// reasonUpdated is what KEDA says when an authentication of either kind has changed.
const reasonUpdated = "ClusterTriggerAuthenticationUpdated"

// state is all that matters of an authentication.
type state struct {
	object client.Object
	// seen is the generation that was told of since the start; 0 if none.
	seen int64
	// objects and jobs are the names of who uses it.
	objects, jobs []string
}

// plan is what is to be written and told.
type plan struct {
	// finalize puts the finalizer on, or takes it off one that is gone.
	finalize, gone bool
	// status is what it is to be; nil if it is so.
	status   *kedav1alpha1.TriggerAuthenticationStatus
	happened *happening
}

// A happening is an event to be told.
type happening struct {
	kind            string
	cloud           kedaeventingv1alpha1.CloudEventType
	reason, message string
}

// decide works out what is to be written and told. It is a pure function of the state.
func (k kind) decide(s state) plan {
	claimed := controllerutil.ContainsFinalizer(s.object, finalizer)
	if s.object.GetDeletionTimestamp() != nil {
		p := plan{gone: true, finalize: claimed}
		if claimed {
			p.happened = &happening{corev1.EventTypeNormal, k.removed, k.name + "Deleted", k.name + " was deleted"}
		}
		return p
	}
	p := plan{finalize: !claimed}
	switch generation := s.object.GetGeneration(); {
	case claimed && (s.seen == 0 || s.seen == generation): // told before
	case generation <= 1:
		p.happened = &happening{corev1.EventTypeNormal, k.created, k.name + "Added", "New " + k.name + " configured"}
	default:
		p.happened = &happening{
			corev1.EventTypeNormal, k.updated, reasonUpdated, fmt.Sprintf("ClusterTriggerAuthentication %s is updated", s.object.GetName()),
		}
	}
	have := *k.status(s.object)
	want := kedav1alpha1.TriggerAuthenticationStatus{
		ScaledObjectNamesStr: names(have.ScaledObjectNamesStr, s.objects),
		ScaledJobNamesStr:    names(have.ScaledJobNamesStr, s.jobs),
	}
	if want != have {
		p.status = &want
	}
	return p
}

// names brings a list up to date: whoever is on it keeps the place.
func names(list string, users []string) string {
	left := map[string]bool{}
	for _, name := range users {
		left[name] = true
	}
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if left[name] {
			out = append(out, name)
			delete(left, name)
		}
	}
	users = slices.Sorted(slices.Values(users))
	for _, name := range users {
		if left[name] {
			out = append(out, name)
			delete(left, name)
		}
	}
	return strings.Join(out, ",")
}
