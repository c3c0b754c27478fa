package scaled_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render/scaled"
)

func service(text string) *servingv1.Service {
	return &servingv1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "orders", UID: "u", Annotations: map[string]string{scaled.Annotation: text},
	}}
}

func TestBothFormsMakeAScaledObject(t *testing.T) {
	triggers := []kedav1alpha1.ScaleTriggers{
		{Type: "redis", Name: "queue", Metadata: map[string]string{"listName": "orders"}, AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: "login"}},
		{Type: "cron", Metadata: map[string]string{"desiredReplicas": "2"}},
	}
	list := `
- type: redis
  name: queue
  metadata: {listName: orders}
  authenticationRef: {name: login}
- {type: cron, metadata: {desiredReplicas: "2"}}
`
	for name, c := range map[string]struct {
		text string
		want kedav1alpha1.ScaledObjectSpec
	}{
		"a list": {list, kedav1alpha1.ScaledObjectSpec{Triggers: triggers}},
		"a spec": {
			"cooldownPeriod: 10\nfallback: {failureThreshold: 3, replicas: 2}\ntriggers:" + list,
			kedav1alpha1.ScaledObjectSpec{
				CooldownPeriod: new(int32(10)), Fallback: &kedav1alpha1.Fallback{FailureThreshold: 3, Replicas: 2}, Triggers: triggers,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			so, err := scaled.Object(service(c.text))
			if err != nil {
				t.Fatal(err)
			}
			c.want.ScaleTargetRef = &kedav1alpha1.ScaleTarget{APIVersion: "serving.knative.dev/v1", Kind: "Service", Name: "orders"}
			if diff := cmp.Diff(c.want, so.Spec); diff != "" {
				t.Error(diff)
			}
			if owner := metav1.GetControllerOf(so); owner == nil || owner.UID != "u" || owner.Kind != "Service" || so.Name != "orders" || so.Namespace != "shop" {
				t.Errorf("the object is %+v", so.ObjectMeta)
			}
		})
	}
}

func TestWithoutTheAnnotationThereIsNone(t *testing.T) {
	for _, s := range []*servingv1.Service{{}, service(" \n")} {
		if so, err := scaled.Object(s); so != nil || err != nil {
			t.Errorf("Object() = %v, %v; want nothing", so, err)
		}
	}
}

func TestMistakesNameTriggerAndField(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":             {"- a: [", "it is no YAML"},
		"a word":              {"redis", "neither a list of triggers nor"},
		"a field there isn't": {"[{type: cron}, {type: cron, metdata: {}}]", `triggers[1]: unknown field "metdata"`},
		"a number":            {"[{type: cron, metadata: {desiredReplicas: 2}}]", "triggers[0].metadata.desiredReplicas: 2 is no string; put it in quotes"},
		"a trigger's a word":  {"[cron]", "triggers[0]: a value of type string has no place there"},
		"no list":             {"{triggers: {type: cron}}", "triggers: a value of type object has no place there"},
		"a spec's field":      {"{cooldown: 5, triggers: []}", `unknown field "cooldown"`},
		"a target":            {"{scaleTargetRef: {name: x}, triggers: []}", scaled.ErrTarget.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			if so, err := scaled.Object(service(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Object() = %v, %v; want an error with %q", so, err, c.want)
			}
		})
	}
}
