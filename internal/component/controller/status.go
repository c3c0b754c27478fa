package controller

import (
	"reflect"
	"strconv"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
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

// Matches tells whether a revision that has the name a Configuration's template asks for may stand
// for it: it must be the Configuration's own, made of this generation or of the same spec.
func Matches(cfg *servingv1.Configuration, rev *servingv1.Revision) bool {
	if !metav1.IsControlledBy(rev, cfg) {
		return false
	}
	generation := strconv.FormatInt(cfg.Generation, 10)
	return rev.Labels[serving.ConfigurationGenerationLabelKey] == generation ||
		equality.Semantic.DeepEqual(cfg.Spec.Template.Spec, rev.Spec)
}
