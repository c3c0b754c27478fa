// Package render turns Serving's objects into those they stand for: a Service into a Configuration
// and a Route, a Configuration into a Revision, a Revision into a Deployment and a PodAutoscaler,
// a Route into a Kubernetes Service.
//
// Names, labels and annotations are Knative's, because tools find things by them. Every function
// is pure and returns a new object that shares no memory with its input.
package render

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/serving"
)

// without returns a copy of in lacking the keys that drop tells; it is never nil.
func without(in map[string]string, drop func(key string) bool) map[string]string {
	out := make(map[string]string, len(in))
	for k, v := range in {
		if !drop(k) {
			out[k] = v
		}
	}
	return out
}

// with returns a copy of in with more added; it is never nil.
func with(in, more map[string]string) map[string]string {
	out := make(map[string]string, len(in)+len(more))
	maps.Copy(out, in)
	maps.Copy(out, more)
	return out
}

// RouteNames reads the annotation that lists the routes leading to a Configuration or Revision.
func RouteNames(annotations map[string]string) []string {
	list := annotations[serving.RoutesAnnotationKey]
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// WithRoute returns the annotation's value with route in the list, or taken out of it; the list is
// sorted and an empty one is the empty string.
func WithRoute(annotations map[string]string, route string, listed bool) string {
	names := slices.DeleteFunc(RouteNames(annotations), func(n string) bool { return n == route })
	if listed {
		names = append(names, route)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func ownedBy(owner kmeta.OwnerRefable) []metav1.OwnerReference {
	return []metav1.OwnerReference{*kmeta.NewControllerRef(owner)}
}
