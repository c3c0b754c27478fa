package route

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/render"
)

// A note is a change of what a Configuration or Revision knows of the routes leading to it.
type note struct {
	object client.Object
	patch  []byte
}

// notes works out which Configurations and Revisions must be told that the Route leads to them, or
// does so no longer. Old notes go only once the Route's fate is settled, so that a Revision that is
// being replaced stays up until its successor serves.
func notes(s state, route *servingv1.Route, now time.Time) ([]note, error) {
	revisions, configurations := referenced(s, route)
	settled := route.IsReady() || route.IsFailed()
	var out []note
	for name, rev := range s.revisions {
		n, err := noteFor(rev, link{route.Name, revisions[name], settled, now}, true)
		if err != nil {
			return nil, err
		}
		out = append(out, n...)
	}
	for name, cfg := range s.configurations {
		n, err := noteFor(cfg, link{route.Name, configurations[name], settled, now}, false)
		if err != nil {
			return nil, err
		}
		out = append(out, n...)
	}
	return out, nil
}

// referenced names what the Route's spec and status lead to, with the latest created Revision of
// every Configuration whose latest is wanted.
func referenced(s state, route *servingv1.Route) (revisions, configurations map[string]bool) {
	revisions, configurations = map[string]bool{}, map[string]bool{}
	for _, tt := range slices.Concat(route.Status.Traffic, route.Spec.Traffic) {
		cfg := tt.ConfigurationName
		if rev := s.revisions[tt.RevisionName]; rev != nil {
			revisions[rev.Name] = true
			if owner := metav1.GetControllerOf(rev); owner != nil && owner.Kind == "Configuration" {
				cfg = owner.Name
			}
		}
		if c := s.configurations[cfg]; c != nil {
			configurations[cfg] = true
			if latest := c.Status.LatestCreatedRevisionName; latest != "" && truth(tt.LatestRevision) {
				revisions[latest] = true
			}
		}
	}
	return revisions, configurations
}

// link is how a Route stands to an object.
type link struct {
	route   string
	leads   bool // traffic leads there
	settled bool // the Route's fate is known
	now     time.Time
}

// noteFor returns at most one note: the object's list of routes and, for a Revision (state), its
// routing state.
func noteFor(o client.Object, l link, state bool) ([]note, error) {
	noted := slices.Contains(render.RouteNames(o.GetAnnotations()), l.route)
	if noted && !l.leads && !l.settled {
		return nil, nil
	}
	annotations, labels := map[string]any{}, map[string]any{}
	list := o.GetAnnotations()[serving.RoutesAnnotationKey]
	if noted != l.leads {
		list = render.WithRoute(o.GetAnnotations(), l.route, l.leads)
		annotations[serving.RoutesAnnotationKey] = orNil(list)
	}
	if state && (l.leads || noted) {
		want := servingv1.RoutingStateReserve
		if list != "" {
			want = servingv1.RoutingStateActive
		}
		if o.GetLabels()[serving.RoutingStateLabelKey] != string(want) {
			labels[serving.RoutingStateLabelKey] = string(want)
			annotations[serving.RoutingStateModifiedAnnotationKey] = servingv1.RoutingStateModifiedString(l.now)
		}
	}
	if len(annotations)+len(labels) == 0 {
		return nil, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations, "labels": labels}})
	if err != nil {
		return nil, fmt.Errorf("encoding the note on %s: %w", o.GetName(), err)
	}
	return []note{{o, patch}}, nil
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (r *Reconciler) annotate(ctx context.Context, all []note) error {
	for _, n := range all {
		o, ok := n.object.DeepCopyObject().(client.Object)
		if !ok {
			continue
		}
		err := r.client.Patch(ctx, o, client.RawPatch(types.MergePatchType, n.patch))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("noting a route on %s/%s: %w", o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}
