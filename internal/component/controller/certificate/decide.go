package certificate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/kmeta"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/authority"
)

// state is all that a decision about a Certificate rests on.
type state struct {
	certificate *netv1alpha1.Certificate
	class       string
	secret      *corev1.Secret      // nil when there is none, or one without our mark
	judgement   authority.Judgement // of what is in it
	now         time.Time
}

// plan is what is to be done.
type plan struct {
	sign  bool                     // make a new pair; what to say follows when it is kept
	after *netv1alpha1.Certificate // the Certificate with its new status
	again time.Duration            // when to look again
}

// decide makes the plan for a certificate of our own class.
func decide(s state) plan {
	after := begun(s.certificate)
	switch {
	case len(s.certificate.Spec.DNSNames) == 0:
		after.Status.MarkFailed("NoNames", "spec.dnsNames names no host")
		return plan{after: finished(after, s.certificate)}
	case s.secret != nil && !metav1.IsControlledBy(s.secret, s.certificate):
		return unowned(s)
	case s.secret == nil || !s.judgement.Good || s.secret.Labels[netapi.CertificateUIDLabelKey] != string(s.certificate.UID):
		return plan{sign: true, after: after}
	}
	ends := metav1.NewTime(s.judgement.Ends)
	after.Status.NotAfter = &ends
	after.Status.MarkReady()
	return plan{after: finished(after, s.certificate), again: min(s.judgement.Renew.Sub(s.now), recheck)}
}

// unowned is the plan when the Secret's name is another's.
func unowned(s state) plan {
	after := begun(s.certificate)
	after.Status.MarkResourceNotOwned("Secret", s.certificate.Spec.SecretName)
	return plan{after: finished(after, s.certificate)}
}

func begun(c *netv1alpha1.Certificate) *netv1alpha1.Certificate {
	after := c.DeepCopy()
	after.Status.InitializeConditions()
	return after
}

func finished(after, before *netv1alpha1.Certificate) *netv1alpha1.Certificate {
	controller.Finish(after, before)
	return after
}

// secretFor is the Secret of a Certificate, marked so that it is watched, and gone when that goes.
func secretFor(c *netv1alpha1.Certificate, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.Spec.SecretName, Namespace: c.Namespace,
			Labels:          map[string]string{netapi.CertificateUIDLabelKey: string(c.UID)},
			OwnerReferences: []metav1.OwnerReference{*kmeta.NewControllerRef(c)},
		},
		Type: corev1.SecretTypeTLS,
		Data: data,
	}
}
