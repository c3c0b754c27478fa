package certificate

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/kmeta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// peerClass is the class of certificates that cert-manager is asked for.
const peerClass = netcfg.CertManagerCertificateClassName

var peerKind = schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"}

// peerDefinition is the definition of cert-manager's certificates, there where cert-manager is.
func peerDefinition() client.Object { return kube.CertManagerDefinition() }

func newPeer() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(peerKind)
	return u
}

// watchPeers returns what has cert-manager's certificates watched, from its first call on: a watch of
// a kind that is not there would ask for it again and again.
func watchPeers(m ctrl.Manager, ctl ctrlcontroller.Controller) func() error {
	return sync.OnceValue(func() error {
		owner := handler.EnqueueRequestForOwner(m.GetScheme(), m.GetRESTMapper(), &netv1alpha1.Certificate{}, handler.OnlyControllerOwner())
		if err := ctl.Watch(source.Kind[client.Object](m.GetCache(), newPeer(), owner)); err != nil {
			return fmt.Errorf("watching cert-manager's certificates: %w", err)
		}
		return nil
	})
}

// peerState is all that a decision about a certificate of cert-manager's rests on.
type peerState struct {
	certificate *netv1alpha1.Certificate
	defined     bool                       // cert-manager's kind is, and will be served
	there       bool                       // it is served
	have        *unstructured.Unstructured // its certificate, nil for none
	issuers     *settings.CertManager
}

// servedSoon is how long after a kind is defined it is looked for again; nothing tells when the API
// begins to serve it.
const servedSoon = time.Second

// askPeer observes, decides and acts for a certificate of cert-manager's class.
func (r *Reconciler) askPeer(ctx context.Context, c *netv1alpha1.Certificate) (again time.Duration, err error) {
	s, err := r.observePeer(ctx, c)
	if err != nil {
		return 0, err
	}
	if s.there {
		if err := r.peers(); err != nil {
			return 0, err
		}
	} else if s.defined {
		again = servedSoon
	}
	after, create, update := decidePeer(s)
	if create != nil {
		if err := r.client.Create(ctx, create); err != nil && !apierrors.IsAlreadyExists(err) {
			return 0, fmt.Errorf("creating cert-manager's certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
		r.events.Eventf(c, create, corev1.EventTypeNormal, "Created", "Create", "Created Cert-Manager Certificate %s/%s", c.Namespace, c.Name)
	}
	if update != nil {
		if err := r.client.Update(ctx, update); err != nil {
			return 0, fmt.Errorf("updating cert-manager's certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	return again, r.writeStatus(ctx, c, after)
}

// observePeer gathers what cert-manager has for a Certificate.
func (r *Reconciler) observePeer(ctx context.Context, c *netv1alpha1.Certificate) (peerState, error) {
	s := peerState{certificate: c, issuers: r.settings.Current().CertManager}
	have := newPeer()
	err := r.client.Get(ctx, client.ObjectKeyFromObject(c), have)
	switch {
	case err == nil:
		s.there, s.have = true, have
	case meta.IsNoMatchError(err):
		definition := peerDefinition()
		err := r.client.Get(ctx, client.ObjectKeyFromObject(definition), definition)
		if s.defined = err == nil; client.IgnoreNotFound(err) != nil {
			return s, fmt.Errorf("looking for cert-manager: %w", err)
		}
	case apierrors.IsNotFound(err):
		s.there = true
	default:
		return s, fmt.Errorf("getting cert-manager's certificate %s/%s: %w", c.Namespace, c.Name, err)
	}
	return s, nil
}

// decidePeer says what cert-manager is to be asked for, and what it has answered.
func decidePeer(s peerState) (after *netv1alpha1.Certificate, create, update *unstructured.Unstructured) {
	after = begun(s.certificate)
	defer func() { finished(after, s.certificate) }()
	if !s.there {
		after.Status.MarkNotReady("CertManagerMissing", "cert-manager, whose class this is, is not installed")
		return after, nil, nil
	}
	want, reason, message := peerFor(s.certificate, s.issuers)
	if want == nil {
		after.Status.MarkFailed(reason, message)
		return after, nil, nil
	}
	if s.have == nil {
		after.Status.MarkNotReady(noCondition, noConditionMessage)
		return after, want, nil
	}
	if !metav1.IsControlledBy(s.have, s.certificate) {
		after.Status.MarkResourceNotOwned("CertManagerCertificate", s.have.GetName())
		return after, nil, nil
	}
	if !says(s.have.Object["spec"], want.Object["spec"]) {
		update = s.have.DeepCopy()
		update.Object["spec"] = want.Object["spec"]
	}
	propagate(&after.Status, s.have)
	return after, nil, update
}

const (
	noCondition        = "NoCertManagerCertCondition"
	noConditionMessage = "The ready condition of Cert Manager Certificate does not exist."
)

// passing are the reasons with which cert-manager says that a certificate is on its way.
var passing = map[string]bool{"InProgress": true, "Pending": true, "TemporaryCertificate": true}

// propagate says of a certificate what cert-manager says.
func propagate(into *netv1alpha1.CertificateStatus, have *unstructured.Unstructured) {
	if text, _, _ := unstructured.NestedString(have.Object, "status", "notAfter"); text != "" {
		if ends, err := time.Parse(time.RFC3339, text); err == nil {
			t := metav1.NewTime(ends)
			into.NotAfter = &t
		}
	}
	status, reason, message := peerReady(have)
	switch {
	case status == "":
		into.MarkNotReady(noCondition, noConditionMessage)
	case status == "True":
		into.MarkReady()
	case status == "False" && !passing[reason]:
		into.MarkFailed(reason, message)
	default:
		into.MarkNotReady(reason, message)
	}
}

func peerReady(have *unstructured.Unstructured) (status, reason, message string) {
	conditions, _, _ := unstructured.NestedSlice(have.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Ready" {
			status, _ = m["status"].(string)
			reason, _ = m["reason"].(string)
			message, _ = m["message"].(string)
		}
	}
	return status, reason, message
}

// peerFor is the certificate to ask for; nil, with a reason, when there can be none.
func peerFor(c *netv1alpha1.Certificate, issuers *settings.CertManager) (want *unstructured.Unstructured, reason, message string) {
	common, names, message := commonName(c.Spec)
	if message != "" {
		return nil, "CommonName Too Long", message
	}
	issuer, ok := issuerFor(c, issuers)
	if !ok {
		return nil, "certificate type invalid", fmt.Sprintf("error creating cert-manager certificate: certificate type %s is invalid", certificate.KindOf(c))
	}
	ref := map[string]any{"name": issuer.Name}
	for key, value := range map[string]string{"kind": issuer.Kind, "group": issuer.Group} {
		if value != "" {
			ref[key] = value
		}
	}
	want = newPeer()
	want.SetName(c.Name)
	want.SetNamespace(c.Namespace)
	want.SetLabels(c.Labels)
	want.SetAnnotations(c.Annotations)
	want.SetOwnerReferences([]metav1.OwnerReference{*kmeta.NewControllerRef(c)})
	want.Object["spec"] = map[string]any{
		"commonName": common, "dnsNames": anys(names), "secretName": c.Spec.SecretName, "issuerRef": ref,
		"secretTemplate": map[string]any{"labels": map[string]any{netapi.CertificateUIDLabelKey: string(c.UID)}},
	}
	return want, "", ""
}

func issuerFor(c *netv1alpha1.Certificate, issuers *settings.CertManager) (settings.Issuer, bool) {
	switch certificate.KindOf(c) {
	case netcfg.CertificateExternalDomain:
		return issuers.External, true
	case netcfg.CertificateClusterLocalDomain:
		return issuers.ClusterLocal, true
	case netcfg.CertificateSystemInternal:
		return issuers.SystemInternal, true
	}
	return settings.Issuer{}, false
}

// Common names are limited; a longer host gets a short one below its domain, which is then among the
// alternative names.
const (
	longest     = 63
	shortPrefix = "k."
)

func commonName(spec netv1alpha1.CertificateSpec) (common string, names []string, problem string) {
	if len(spec.DNSNames) > 0 {
		common = spec.DNSNames[0]
	}
	if len(common) <= longest {
		return common, spec.DNSNames, ""
	}
	if spec.Domain == "" || spec.Domain == common || len(shortPrefix+spec.Domain) > longest {
		return "", nil, fmt.Sprintf("error creating cert-manager certificate: CommonName (%s) longer than %d characters", common, longest)
	}
	common = shortPrefix + spec.Domain
	return common, append([]string{common}, spec.DNSNames...), ""
}

// says tells whether have says all that want does; defaults that cert-manager fills in are its own.
func says(have, want any) bool {
	w, isMap := want.(map[string]any)
	if !isMap {
		return equality.Semantic.DeepEqual(have, want)
	}
	h, _ := have.(map[string]any)
	for key, value := range w {
		if !says(h[key], value) {
			return false
		}
	}
	return true
}

func anys(all []string) []any {
	out := make([]any, 0, len(all))
	for _, s := range all {
		out = append(out, s)
	}
	return out
}
