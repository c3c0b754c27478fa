// Package certificate reconciles Certificates: those of ebb's own class are signed by its authority,
// those of cert-manager's are asked of cert-manager, and others are left to whoever knows their class.
package certificate

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// recheck bounds the sleep until a renewal: timers stand still while a machine sleeps, certificates
// age on.
const recheck = 12 * time.Hour

// A Reconciler keeps Certificates' Secrets and status.
type Reconciler struct {
	client    client.Client
	secrets   client.Reader // those of certificates only, from the cache
	live      client.Reader // past the cache, for a name that is taken
	events    events.EventRecorder
	settings  *settings.Store
	authority *authority.Keeper
	peers     func() error // has cert-manager's objects watched
	now       func() time.Time
	log       *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client:    c.Manager.GetClient(),
		secrets:   c.Manager.GetCache(),
		live:      c.Manager.GetAPIReader(),
		events:    c.Manager.GetEventRecorder("certificate-controller"),
		settings:  c.Settings,
		authority: c.Authority,
		now:       time.Now,
		log:       c.Log,
	}
	c.Settings.Subscribe(func() { r.everyone(ctx, peerClass, trigger.Fire) })
	c.Authority.Subscribe(func() { r.everyone(ctx, certificate.Class, trigger.Fire) })
	ctl, err := ctrl.NewControllerManagedBy(c.Manager).
		Named("certificate").
		For(&netv1alpha1.Certificate{}).
		Owns(&corev1.Secret{}).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.ofAuthority)).
		Watches(peerDefinition(), handler.EnqueueRequestsFromMapFunc(r.ofPeer)).
		WatchesRawSource(trigger).
		Build(r)
	if err != nil {
		return fmt.Errorf("adding the certificate controller: %w", err)
	}
	r.peers = watchPeers(c.Manager, ctl)
	return nil
}

// ofAuthority has the authority looked at when its Secret changes.
func (r *Reconciler) ofAuthority(_ context.Context, o client.Object) []ctrl.Request {
	if key := client.ObjectKeyFromObject(o); r.authority.Is(key) {
		return []ctrl.Request{{NamespacedName: key}}
	}
	return nil
}

// ofPeer asks for all certificates that cert-manager makes, as it came or went.
func (r *Reconciler) ofPeer(ctx context.Context, _ client.Object) []ctrl.Request {
	var out []ctrl.Request
	r.everyone(ctx, peerClass, func(key types.NamespacedName) { out = append(out, ctrl.Request{NamespacedName: key}) })
	return out
}

// everyone calls fire with every Certificate of a class.
func (r *Reconciler) everyone(ctx context.Context, class string, fire func(types.NamespacedName)) {
	var list netv1alpha1.CertificateList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing certificates", "error", err)
		return
	}
	for i := range list.Items {
		if netapi.GetCertificateClass(list.Items[i].Annotations) == class {
			fire(client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
}

// Reconcile brings one Certificate's Secret and status up to date; it comes back before the renewal.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if r.authority.Is(req.NamespacedName) {
		if err := r.observeAuthority(ctx, req.NamespacedName); err != nil {
			return ctrl.Result{}, err
		}
	}
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	if s.class == peerClass {
		again, err := r.askPeer(ctx, s.certificate)
		return ctrl.Result{RequeueAfter: again}, controller.Settled(err)
	}
	p := decide(*s)
	if err := r.act(ctx, s, p); err != nil {
		return ctrl.Result{}, controller.Settled(err)
	}
	return ctrl.Result{RequeueAfter: p.again}, nil
}

func (r *Reconciler) observeAuthority(ctx context.Context, key types.NamespacedName) error {
	secret := &corev1.Secret{}
	err := r.live.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		return r.authority.Observe(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("getting the certificate authority: %w", err)
	}
	return r.authority.Observe(ctx, secret)
}

// observe gathers the Certificate and its Secret; nil when there is nothing to keep.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{certificate: &netv1alpha1.Certificate{}, now: r.now()}
	if err := r.client.Get(ctx, key, s.certificate); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	s.class = netapi.GetCertificateClass(s.certificate.Annotations)
	if s.certificate.DeletionTimestamp != nil || s.class != certificate.Class && s.class != peerClass {
		return nil, nil
	}
	if s.class == peerClass {
		return s, nil
	}
	secret := &corev1.Secret{}
	name := certificate.SecretOf(s.certificate)
	switch err := r.secrets.Get(ctx, name, secret); {
	case err == nil:
		s.secret = secret
		s.judgement = r.authority.Current().Judge(authority.PairOf(secret), s.certificate.Spec.DNSNames, s.now)
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("getting secret %s: %w", name, err)
	}
	return s, nil
}

// act writes the Secret; its event brings the reconcile that says so. Else it writes the status.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	if p.sign {
		taken, err := r.sign(ctx, s)
		if err != nil || !taken {
			return err
		}
		p = unowned(*s)
	}
	return r.writeStatus(ctx, s.certificate, p.after)
}

// sign makes a new pair and keeps it; taken says that the Secret's name is somebody else's.
func (r *Reconciler) sign(ctx context.Context, s *state) (taken bool, err error) {
	by := r.authority.Current()
	pair, err := by.Sign(s.certificate.Spec.DNSNames, s.now)
	if err != nil {
		return false, err
	}
	want := secretFor(s.certificate, pair.Data(by))
	if s.secret != nil {
		want.ResourceVersion = s.secret.ResourceVersion
		if err := r.client.Update(ctx, want); err != nil {
			return false, fmt.Errorf("updating secret %s/%s: %w", want.Namespace, want.Name, err)
		}
		return false, nil
	}
	err = r.client.Create(ctx, want)
	switch {
	case err == nil:
		r.events.Eventf(s.certificate, want, corev1.EventTypeNormal, "Created", "Create", "Created Secret %q", want.Name)
		return false, nil
	case !apierrors.IsAlreadyExists(err):
		return false, fmt.Errorf("creating secret %s/%s: %w", want.Namespace, want.Name, err)
	}
	have := &corev1.Secret{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(want), have); err != nil {
		return false, fmt.Errorf("getting secret %s/%s: %w", want.Namespace, want.Name, err)
	}
	return !metav1.IsControlledBy(have, s.certificate), nil
}

func (r *Reconciler) writeStatus(ctx context.Context, before, after *netv1alpha1.Certificate) error {
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, after); err != nil {
		return fmt.Errorf("updating status of certificate %s/%s: %w", after.Namespace, after.Name, err)
	}
	return nil
}
