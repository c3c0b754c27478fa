// Package namespace reconciles namespaces: those that namespace-wildcard-cert-selector chooses have
// one certificate for all their hosts below each domain, so that a new Route waits for none.
package namespace

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// A Reconciler keeps namespaces' certificates.
type Reconciler struct {
	client   client.Client
	events   events.EventRecorder
	settings *settings.Store
	log      *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client: c.Manager.GetClient(), events: c.Manager.GetEventRecorder("namespace-controller"), settings: c.Settings, log: c.Log,
	}
	c.Settings.Subscribe(func() { r.everyone(ctx, trigger.Fire) })
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("namespace").
		For(&corev1.Namespace{}).
		Owns(&netv1alpha1.Certificate{}).
		WatchesRawSource(trigger).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the namespace controller: %w", err)
	}
	return nil
}

// everyone asks for a reconcile of all namespaces, as the settings changed.
func (r *Reconciler) everyone(ctx context.Context, fire func(types.NamespacedName)) {
	var list corev1.NamespaceList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing namespaces after a change of settings", "error", err)
		return
	}
	for i := range list.Items {
		fire(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// Reconcile brings one namespace's certificates up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.Name)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p, err := decide(*s)
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, controller.Settled(r.act(ctx, s.namespace, p))
}

// state is all that a decision about a namespace rests on.
type state struct {
	namespace    *corev1.Namespace
	certificates []*netv1alpha1.Certificate // those with a wildcard
	settings     *settings.Settings
}

// observe gathers the namespace and its wildcards; nil when it is gone or going.
func (r *Reconciler) observe(ctx context.Context, name string) (*state, error) {
	s := &state{namespace: &corev1.Namespace{}, settings: r.settings.Current()}
	if err := r.client.Get(ctx, types.NamespacedName{Name: name}, s.namespace); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.namespace.DeletionTimestamp != nil {
		return nil, nil
	}
	var list netv1alpha1.CertificateList
	if err := r.client.List(ctx, &list, client.InNamespace(name), client.HasLabels{netapi.WildcardCertDomainLabelKey}); err != nil {
		return nil, fmt.Errorf("listing certificates in %s: %w", name, err)
	}
	for i := range list.Items {
		s.certificates = append(s.certificates, &list.Items[i])
	}
	return s, nil
}

// plan is what is to be written.
type plan struct{ create, update, remove []*netv1alpha1.Certificate }

// decide makes the plan. A certificate somebody else made for the same names does as well.
func decide(s state) (plan, error) {
	wanted, err := wildcards(s)
	if err != nil {
		return plan{}, err
	}
	var p plan
	for _, domain := range slices.Sorted(maps.Keys(wanted)) {
		want := wanted[domain]
		same := func(c *netv1alpha1.Certificate) bool { return slices.Contains(c.Spec.DNSNames, want.Spec.DNSNames[0]) }
		if slices.ContainsFunc(s.certificates, same) {
			continue
		}
		own := slices.IndexFunc(s.certificates, func(c *netv1alpha1.Certificate) bool {
			return metav1.IsControlledBy(c, s.namespace) && c.Labels[netapi.WildcardCertDomainLabelKey] == domain
		})
		if own < 0 {
			p.create = append(p.create, want)
			continue
		}
		changed := s.certificates[own].DeepCopy()
		changed.Spec = want.Spec
		p.update = append(p.update, changed)
	}
	for _, c := range s.certificates {
		if metav1.IsControlledBy(c, s.namespace) && wanted[c.Labels[netapi.WildcardCertDomainLabelKey]] == nil {
			p.remove = append(p.remove, c)
		}
	}
	return p, nil
}

// wildcards are the certificates a namespace is to have, by domain.
func wildcards(s state) (map[string]*netv1alpha1.Certificate, error) {
	selector, err := metav1.LabelSelectorAsSelector(s.settings.Network.NamespaceWildcardCertSelector)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", netcfg.NamespaceWildcardCertSelectorKey, err)
	}
	out := map[string]*netv1alpha1.Certificate{}
	if !selector.Matches(labels.Set(s.namespace.Labels)) {
		return out, nil
	}
	class := certificate.ClassOf(s.settings.Network, s.namespace.Annotations)
	for domain, d := range s.settings.Domain.Domains {
		if d.Type != domaincfg.DomainTypeWildcard {
			continue
		}
		name, err := wildcard(s.settings.Network, s.namespace.Name, domain)
		if err != nil {
			return nil, err
		}
		out[domain] = certificate.OfNamespace(s.namespace, name, domain, class)
	}
	return out, nil
}

// wildcard is the name of all hosts of a namespace; a template that has anything before the name of
// a Route makes none.
func wildcard(network *netcfg.Config, namespace, domain string) (string, error) {
	var b bytes.Buffer
	if err := network.GetDomainTemplate().Execute(&b, netcfg.DomainTemplateValues{Name: "*", Namespace: namespace, Domain: domain}); err != nil {
		return "", fmt.Errorf("naming the wildcard of namespace %s: %w", namespace, err)
	}
	if !strings.HasPrefix(b.String(), "*.") || len(b.String()) < 3 {
		return "", fmt.Errorf("naming the wildcard of namespace %s: %q: the domain template must begin with {{.Name}} and a dot", namespace, b.String())
	}
	return b.String(), nil
}

func (r *Reconciler) act(ctx context.Context, ns *corev1.Namespace, p plan) error {
	for _, c := range p.create {
		if err := r.client.Create(ctx, c); apierrors.IsAlreadyExists(err) {
			continue // the cache is behind, or it is another's
		} else if err != nil {
			r.events.Eventf(ns, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create Knative certificate %s/%s: %v", ns.Name, c.Name, err)
			return fmt.Errorf("creating certificate %s/%s: %w", ns.Name, c.Name, err)
		}
		r.events.Eventf(c, nil, corev1.EventTypeNormal, "Created", "Create", "Created Knative Certificate %s/%s", ns.Name, c.Name)
	}
	for _, c := range p.update {
		if err := r.client.Update(ctx, c); err != nil {
			return fmt.Errorf("updating certificate %s/%s: %w", ns.Name, c.Name, err)
		}
	}
	for _, c := range p.remove {
		if err := r.client.Delete(ctx, c); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting certificate %s/%s: %w", ns.Name, c.Name, err)
		}
	}
	return nil
}
