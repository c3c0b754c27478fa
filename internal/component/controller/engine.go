package controller

import (
	"context"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/activation"
)

// An Engine keeps the targets of ScaledObjects at the number of replicas their triggers ask for.
type Engine interface {
	// Follow begins with an object, or goes on with a changed one: it makes the sources of its
	// triggers, those only that are new or changed, and returns what its HorizontalPodAutoscaler is
	// to show. The object's status names the target. An error means that nothing of it can be
	// followed; what concerns single triggers is in Followed.
	Follow(ctx context.Context, object *kedav1alpha1.ScaledObject) (activation.Followed, error)
	// Unfollow lets go of an object; its target stays as it is. It is so, too, with a paused one.
	Unfollow(key types.NamespacedName)
	// State tells what was decided for an object; false before the first decision.
	State(key types.NamespacedName) (activation.State, bool)
	// Subscribe has fn called after a State, or what Follow would return, changed; it does not block.
	Subscribe(fn func(key types.NamespacedName))
}
