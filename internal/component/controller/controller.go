// Package controller holds what Serving's and KEDA's controllers share: what they are given, how in-process
// news reaches their queues, and how they treat the API's usual answers.
//
// Each controller is a folder below and has one shape: observe gathers all that matters into one
// struct, decide is a pure function of it, act writes the difference. Nothing is polled: a reconcile
// runs because something changed.
package controller

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// Config is what the controllers need from the rest of ebb.
type Config struct {
	// Manager runs the controllers; its cache is where they read.
	Manager ctrl.Manager
	// Settings are the cluster's ConfigMaps.
	Settings *settings.Store
	// Images resolves tags to digests.
	Images Images
	// Fleet counts instances.
	Fleet Fleet
	// Scaler decides how many instances each revision has.
	Scaler Scaler
	// Book is where all hosts are written; it hands the gateway each new route table.
	Book *Book
	// Gateway is the DNS name by which pods reach the gateway.
	Gateway string
	// PublicGateway is the DNS name of what answers for public hosts.
	PublicGateway string
	// Activator is the gateway's address inside the cluster, where it stands for Knative's activator.
	Activator netip.Addr
	// PublicPort is the port of public URLs; 0 and 80 are left out of them.
	PublicPort int
	// PublicTLSPort is the port of public https URLs; 0 and 443 are left out of them.
	PublicTLSPort int
	// Authority signs the certificates of ebb's own class.
	Authority *authority.Keeper
	// HostAliases are further domains for routes of a domain: "localhost" to "127.0.0.1.sslip.io".
	HostAliases map[string][]string
	// Watches tells whether KEDA's objects in a namespace are looked at; nil: all are.
	Watches func(namespace string) bool
	// Busy tells that somebody waits for instances to start: what only shows their number can wait.
	// Optional.
	Busy func() bool
	// Engine scales what ScaledObjects name; without one, KEDA's kinds have no controllers. Targets are
	// what it scales.
	Engine  Engine
	Targets Targets
	// Jobs makes Jobs for ScaledJobs.
	Jobs JobEngine
	// Emitter tells of KEDA's objects.
	Emitter Emitter
	// More are further controllers' setups.
	More []func(context.Context, Config) error
	// Log receives what no condition can tell.
	Log *slog.Logger
}

// Images finds the digest of an image reference. kc may be nil.
type Images interface {
	Digest(ctx context.Context, reference string, kc authn.Keychain) (name.Digest, error)
}

// Fleet is the view of running instances.
type Fleet interface {
	// Ready counts a revision's ready instances.
	Ready(rev types.NamespacedName) int
	// Subscribe has fn called after each change; it does not block.
	Subscribe(fn func(rev types.NamespacedName))
}

// Scaler owns the number of instances of every revision.
type Scaler interface {
	// SetRevision makes a revision known or changes how it is scaled.
	SetRevision(rev types.NamespacedName, spec scale.Spec)
	// RemoveRevision forgets a revision.
	RemoveRevision(rev types.NamespacedName)
	// State tells what is wanted of a revision now; false when nothing was decided yet.
	State(rev types.NamespacedName) (ScaleState, bool)
	// Subscribe has fn called after each change of a State; it does not block.
	Subscribe(fn func(rev types.NamespacedName))
}

// ScaleState is what a Scaler wants of a revision.
type ScaleState struct {
	// Desired is the wanted number of instances; negative when not known.
	Desired int32
	// ExcessBurst is the capacity beyond the target burst; below 0 requests are buffered.
	ExcessBurst int32
	// TimedOut says that the revision was given up because it never became active in time.
	TimedOut bool
}

// A Trigger enqueues reconciles for news that does not come from the API. It is a source of a
// controller; news from before that controller started are kept for it.
type Trigger struct {
	mu    sync.Mutex // guards all below
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	early map[types.NamespacedName]struct{}
}

// Start gives the trigger its controller's queue.
func (t *Trigger) Start(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = q
	for key := range t.early {
		q.Add(reconcile.Request{NamespacedName: key})
	}
	t.early = nil
	return nil
}

// Fire asks for a reconcile of key. It never blocks.
func (t *Trigger) Fire(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue != nil {
		t.queue.Add(reconcile.Request{NamespacedName: key})
		return
	}
	if t.early == nil {
		t.early = map[types.NamespacedName]struct{}{}
	}
	t.early[key] = struct{}{}
}

// Watched lets news pass of objects that are looked at.
func (c *Config) Watched() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return c.Watches == nil || c.Watches(o.GetNamespace()) })
}

// Settled turns the answers that mean "the cache is behind" into success: the change that the cache
// still lacks brings its own event, and that the next reconcile.
func Settled(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
