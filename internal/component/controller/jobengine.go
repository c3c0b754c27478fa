package controller

import (
	"context"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/types"
)

// A JobEngine makes Jobs for the work that ScaledJobs' triggers count, and takes finished ones away.
type JobEngine interface {
	// Follow begins with an object, or goes on with a changed one; if nothing of it changed it does
	// nothing. An error means that none of its triggers can be asked; what concerns single triggers is
	// in its State.
	Follow(ctx context.Context, object *kedav1alpha1.ScaledJob) error
	// Supersede has an object's earlier versions make no more Jobs, and returns the names of those
	// that they made, finished ones included. Of the version that is followed it returns none.
	Supersede(ctx context.Context, key types.NamespacedName, generation int64) ([]string, error)
	// Unfollow lets go of an object; its Jobs stay as they are. It is so, too, with a paused one.
	Unfollow(key types.NamespacedName)
	// State tells what was decided for an object, false before the first decision: the conditions Ready
	// and Active, LastActiveTime, TriggersActivity and ExternalMetricNames.
	State(key types.NamespacedName) (kedav1alpha1.ScaledJobStatus, bool)
	// Subscribe has fn called after a State changed; it does not block.
	Subscribe(fn func(key types.NamespacedName))
}
