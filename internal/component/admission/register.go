package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// Upstream's names of the webhooks: they show in every refusal.
const (
	defaultName  = "webhook.serving.knative.dev"
	validateName = "validation.webhook.serving.knative.dev"
	settingsName = "config.webhook.serving.knative.dev"
	kedaName     = "keda-admission"
)

// claimName is that of the webhook that marks new ScaledObjects; upstream has none.
const claimName = "claim.keda.sh"

// A Way tells how the API server reaches a path of the handler.
type Way func(path string) admissionregistrationv1.WebhookClientConfig

// ByURL is the way to a listener at the address ("127.0.0.1:9443"), known by the bundle.
func ByURL(address string, caBundle []byte) Way {
	return func(path string) admissionregistrationv1.WebhookClientConfig {
		url := "https://" + address + path
		return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: caBundle}
	}
}

// ByService is the way to a Service's port 443, known by the bundle.
func ByService(namespace, name string, caBundle []byte) Way {
	return func(path string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{
			Service:  &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: name, Path: &path},
			CABundle: caBundle,
		}
	}
}

// Register has the API server ask before it stores anything of Serving's or KEDA's. It refuses such writes
// from then on while nobody answers.
func Register(ctx context.Context, c *rest.Config, to Way) error {
	if err := kube.ApplyObjects(ctx, c, Webhooks(to)...); err != nil {
		return fmt.Errorf("registering admission: %w", err)
	}
	return nil
}

// Webhooks returns the webhook configurations.
func Webhooks(to Way) []runtime.Object {
	w := wiring{
		fail: admissionregistrationv1.Fail, none: admissionregistrationv1.SideEffectClassNone,
		seconds: 10, versions: []string{"v1"},
	}
	return []runtime.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{
			TypeMeta:   typeMeta("MutatingWebhookConfiguration"),
			ObjectMeta: metav1.ObjectMeta{Name: defaultName},
			Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name: defaultName, ClientConfig: to(pathDefault), Rules: servingRules(),
				FailurePolicy: &w.fail, SideEffects: &w.none, TimeoutSeconds: &w.seconds, AdmissionReviewVersions: w.versions,
			}},
		},
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			TypeMeta:   typeMeta("ValidatingWebhookConfiguration"),
			ObjectMeta: metav1.ObjectMeta{Name: validateName},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{
				Name: validateName, ClientConfig: to(pathValidate), Rules: servingRules(),
				FailurePolicy: &w.fail, SideEffects: &w.none, TimeoutSeconds: &w.seconds, AdmissionReviewVersions: w.versions,
			}},
		},
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			TypeMeta:   typeMeta("ValidatingWebhookConfiguration"),
			ObjectMeta: metav1.ObjectMeta{Name: settingsName},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{
				Name: settingsName, ClientConfig: to(pathSettings), Rules: rules("", "v1", "configmaps"),
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: settings.Namespace}},
				FailurePolicy:     &w.fail, SideEffects: &w.none, TimeoutSeconds: &w.seconds, AdmissionReviewVersions: w.versions,
			}},
		},
		&admissionregistrationv1.MutatingWebhookConfiguration{
			TypeMeta:   typeMeta("MutatingWebhookConfiguration"),
			ObjectMeta: metav1.ObjectMeta{Name: claimName},
			Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name: claimName, ClientConfig: to(pathClaim), Rules: creations("keda.sh", "v1alpha1", "scaledobjects"),
				FailurePolicy: &w.fail, SideEffects: &w.none, TimeoutSeconds: &w.seconds, AdmissionReviewVersions: w.versions,
			}},
		},
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			TypeMeta:   typeMeta("ValidatingWebhookConfiguration"),
			ObjectMeta: metav1.ObjectMeta{Name: kedaName},
			Webhooks:   kedaWebhooks(to, &w),
		},
	}
}

func kedaWebhooks(to Way, w *wiring) []admissionregistrationv1.ValidatingWebhook {
	var out []admissionregistrationv1.ValidatingWebhook
	for _, k := range kedaKinds {
		out = append(out, admissionregistrationv1.ValidatingWebhook{
			Name: k.webhook, ClientConfig: to(pathKeda), Rules: rules(k.group, k.version, k.plural),
			FailurePolicy: &w.fail, SideEffects: &w.none, TimeoutSeconds: &w.seconds, AdmissionReviewVersions: w.versions,
		})
	}
	return out
}

// wiring is what all webhooks have alike, in a place that pointers can lead to.
type wiring struct {
	fail     admissionregistrationv1.FailurePolicyType
	none     admissionregistrationv1.SideEffectClass
	seconds  int32
	versions []string
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: kind}
}

func servingRules() []admissionregistrationv1.RuleWithOperations {
	return rules("serving.knative.dev", "*", slices.Sorted(maps.Keys(resources))...)
}

func creations(group, version string, plurals ...string) []admissionregistrationv1.RuleWithOperations {
	out := rules(group, version, plurals...)
	out[0].Operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Create}
	return out
}

func rules(group, version string, plurals ...string) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: plurals},
	}}
}
