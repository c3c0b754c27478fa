package controller

import (
	"reflect"

	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
)

// Begin readies an object's conditions for being worked out: all are there, and with a new
// generation Ready is unknown until something is said about it.
func Begin(o duckv1.KRShaped) {
	status, set := o.GetStatus(), o.GetConditionSet()
	set.Manage(status).InitializeConditions()
	if status.ObservedGeneration != o.GetGeneration() {
		set.Manage(status).MarkUnknown(set.GetTopLevelConditionType(),
			"NewObservedGenFailure", "unsuccessfully observed a new generation")
	}
}

// Finish says that the object's generation was observed, and keeps the time of each condition that
// is in the end what it was before.
func Finish(after, before duckv1.KRShaped) {
	status := after.GetStatus()
	status.ObservedGeneration = after.GetGeneration()
	for i := range status.Conditions {
		c := &status.Conditions[i]
		old := before.GetStatus().GetCondition(c.Type)
		if old == nil {
			continue
		}
		now := c.LastTransitionTime
		c.LastTransitionTime = old.LastTransitionTime
		if !reflect.DeepEqual(c, old) {
			c.LastTransitionTime = now
		}
	}
}

// Manage returns what sets conditions of o's status beyond the methods upstream's types have.
func Manage(o duckv1.KRShaped) apis.ConditionManager {
	return o.GetConditionSet().Manage(o.GetStatus())
}
