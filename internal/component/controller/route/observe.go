package route

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/render"
)

// observe gathers the Route and what its traffic names or named; nil when it is gone or going.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{route: &servingv1.Route{}, settings: r.settings.Current(), now: time.Now()}
	if err := r.client.Get(ctx, key, s.route); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.route.DeletionTimestamp != nil {
		return nil, nil
	}
	ingresses := map[string]*netv1alpha1.Ingress{}
	at := types.NamespacedName{Namespace: key.Namespace, Name: render.IngressName(s.route)}
	if err := fetch(ctx, r.client, at, ingresses, &netv1alpha1.Ingress{}); err != nil {
		return nil, err
	}
	s.ingress = ingresses[at.Name]
	if err := r.targets(ctx, s); err != nil {
		return nil, err
	}
	var err error
	if s.certificates, err = r.certificates(ctx, s.route); err != nil {
		return nil, err
	}
	var services corev1.ServiceList
	if err := r.client.List(ctx, &services, client.InNamespace(key.Namespace), client.MatchingLabels{serving.RouteLabelKey: key.Name}); err != nil {
		return nil, fmt.Errorf("listing services of route %s: %w", key, err)
	}
	s.services = map[string]*corev1.Service{}
	for i := range services.Items {
		s.services[services.Items[i].Name] = &services.Items[i]
	}
	return s, nil
}

// targets gathers every Configuration and Revision that the Route's spec or status names, that its
// Configurations made last, that is rolling, or that is noted as one of the Route's.
func (r *Reconciler) targets(ctx context.Context, s *state) error {
	s.configurations, s.revisions = map[string]*servingv1.Configuration{}, map[string]*servingv1.Revision{}
	noted, err := r.noted(ctx, client.ObjectKeyFromObject(s.route))
	if err != nil {
		return err
	}
	for _, rev := range noted.revisions {
		s.revisions[rev.Name] = rev
	}
	for _, cfg := range noted.configurations {
		s.configurations[cfg.Name] = cfg
	}
	for _, tt := range slices.Concat(s.route.Spec.Traffic, s.route.Status.Traffic) {
		if err := r.target(ctx, s, tt.ConfigurationName, tt.RevisionName); err != nil {
			return err
		}
	}
	for _, c := range kept(s.ingress).Configurations {
		for _, rev := range c.Revisions {
			at := types.NamespacedName{Namespace: s.route.Namespace, Name: rev.Name}
			if err := fetch(ctx, r.client, at, s.revisions, &servingv1.Revision{}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Reconciler) target(ctx context.Context, s *state, configuration, revision string) error {
	in := func(name string) types.NamespacedName {
		return types.NamespacedName{Namespace: s.route.Namespace, Name: name}
	}
	if err := fetch(ctx, r.client, in(revision), s.revisions, &servingv1.Revision{}); err != nil {
		return err
	}
	if rev := s.revisions[revision]; rev != nil && configuration == "" {
		configuration = rev.Labels[serving.ConfigurationLabelKey]
	}
	if err := fetch(ctx, r.client, in(configuration), s.configurations, &servingv1.Configuration{}); err != nil {
		return err
	}
	cfg := s.configurations[configuration]
	if cfg == nil {
		return nil
	}
	for _, name := range []string{cfg.Status.LatestReadyRevisionName, cfg.Status.LatestCreatedRevisionName} {
		if err := fetch(ctx, r.client, in(name), s.revisions, &servingv1.Revision{}); err != nil {
			return err
		}
	}
	return nil
}

// fetch reads the object of that name into the map, unless it is there, nameless or missing.
func fetch[T client.Object](ctx context.Context, c client.Reader, key types.NamespacedName, into map[string]T, o T) error {
	if _, ok := into[key.Name]; ok || key.Name == "" {
		return nil
	}
	switch err := c.Get(ctx, key, o); {
	case err == nil:
		into[key.Name] = o
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("getting %T %s: %w", o, key, err)
	}
	return nil
}

// marked are the objects that carry a Route's name among the routes leading to them.
type marked struct {
	revisions      []*servingv1.Revision
	configurations []*servingv1.Configuration
}

func (r *Reconciler) noted(ctx context.Context, route types.NamespacedName) (marked, error) {
	var m marked
	var revisions servingv1.RevisionList
	if err := r.client.List(ctx, &revisions, client.InNamespace(route.Namespace), client.MatchingFields{indexRoutes: route.Name}); err != nil {
		return m, fmt.Errorf("listing revisions of route %s: %w", route, err)
	}
	for i := range revisions.Items {
		m.revisions = append(m.revisions, &revisions.Items[i])
	}
	var configurations servingv1.ConfigurationList
	if err := r.client.List(ctx, &configurations, client.InNamespace(route.Namespace), client.MatchingFields{indexRoutes: route.Name}); err != nil {
		return m, fmt.Errorf("listing configurations of route %s: %w", route, err)
	}
	for i := range configurations.Items {
		m.configurations = append(m.configurations, &configurations.Items[i])
	}
	return m, nil
}

const (
	// indexRoutes finds Configurations and Revisions by the routes noted on them.
	indexRoutes = "ebb.routes"
	// indexTargets finds Routes by the Configurations and Revisions their traffic names.
	indexTargets = "ebb.targets"
)

// Index adds the look-ups the controller needs to a cache.
func Index(ctx context.Context, x client.FieldIndexer) error {
	byRoutes := func(o client.Object) []string { return render.RouteNames(o.GetAnnotations()) }
	for _, add := range []struct {
		object client.Object
		name   string
		value  client.IndexerFunc
	}{
		{&servingv1.Configuration{}, indexRoutes, byRoutes},
		{&servingv1.Revision{}, indexRoutes, byRoutes},
		{&servingv1.Route{}, indexTargets, targetsOf},
	} {
		if err := x.IndexField(ctx, add.object, add.name, add.value); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", add.object, add.name, err)
		}
	}
	return nil
}

func targetsOf(o client.Object) []string {
	route, ok := o.(*servingv1.Route)
	if !ok {
		return nil
	}
	var out []string
	for _, tt := range slices.Concat(route.Spec.Traffic, route.Status.Traffic) {
		out = append(out, tt.ConfigurationName, tt.RevisionName)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(s string) bool { return s == "" })
}

// leadingTo maps a Configuration or Revision to the Routes that name it, its Configuration, or are
// noted on it; a Route that was deleted unseen is among the latter, and its note goes.
func (r *Reconciler) leadingTo(ctx context.Context, o client.Object) []ctrl.Request {
	names := map[string]bool{}
	for _, route := range render.RouteNames(o.GetAnnotations()) {
		names[route] = true
	}
	for _, target := range []string{o.GetName(), o.GetLabels()[serving.ConfigurationLabelKey]} {
		if target == "" {
			continue
		}
		var routes servingv1.RouteList
		if err := r.client.List(ctx, &routes, client.InNamespace(o.GetNamespace()), client.MatchingFields{indexTargets: target}, client.UnsafeDisableDeepCopy); err != nil {
			r.log.Error("listing routes by target", "target", target, "error", err)
			continue
		}
		for i := range routes.Items {
			names[routes.Items[i].Name] = true
		}
	}
	out := make([]ctrl.Request, 0, len(names))
	for name := range names {
		out = append(out, ctrl.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}})
	}
	return out
}

// forget takes the notes of a Route that is gone from what it led to. What belongs to the Service of
// its name is noted from the start, before there is a Route, and stays so.
func (r *Reconciler) forget(ctx context.Context, key types.NamespacedName) error {
	m, err := r.noted(ctx, key)
	if err != nil {
		return err
	}
	var all []note
	gone := link{route: key.Name, settled: true, now: time.Now()}
	for _, rev := range m.revisions {
		if rev.Labels[serving.ServiceLabelKey] == key.Name {
			continue
		}
		n, err := noteFor(rev, gone, true)
		if err != nil {
			return err
		}
		all = append(all, n...)
	}
	for _, cfg := range m.configurations {
		if cfg.Labels[serving.ServiceLabelKey] == key.Name {
			continue
		}
		n, err := noteFor(cfg, gone, false)
		if err != nil {
			return err
		}
		all = append(all, n...)
	}
	return r.annotate(ctx, all)
}
