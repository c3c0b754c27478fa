// Package kube is how ebb talks to a Kubernetes API: the types it knows, clients without a rate
// limit, and server-side apply of the manifests it brings along.
package kube

import (
	kedahttpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	kedahttpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

// Scheme returns a new scheme with every type ebb reads or writes: Kubernetes' own, Knative
// Serving's and KEDA's.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme,
		servingv1.AddToScheme,
		servingv1beta1.AddToScheme,
		autoscalingv1alpha1.AddToScheme,
		netv1alpha1.AddToScheme,
		cachingv1alpha1.AddToScheme,
		kedav1alpha1.AddToScheme,
		kedaeventingv1alpha1.AddToScheme,
		kedahttpv1alpha1.AddToScheme,
		kedahttpv1beta1.AddToScheme,
	} {
		utilruntime.Must(add(s)) // fails only when two packages claim one kind, which a build decides
	}
	return s
}
