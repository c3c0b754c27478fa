package controller_test

import (
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"ebb.dev/ebb/internal/component/controller"
)

func TestOnlyWatchedNamespacesAreLookedAt(t *testing.T) {
	some := controller.Config{Watches: func(namespace string) bool { return namespace == "shop" }}
	for _, c := range []struct {
		config    controller.Config
		namespace string
		want      bool
	}{{controller.Config{}, "any", true}, {some, "shop", true}, {some, "any", false}} {
		news := event.CreateEvent{Object: &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace}}}
		if got := c.config.Watched().Create(news); got != c.want {
			t.Errorf("news of namespace %s pass: %v, want %v", c.namespace, got, c.want)
		}
	}
}
