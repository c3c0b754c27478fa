package route

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
)

// restorer fills the table, once the cache is there, with what every Route's status shows, so that
// after a restart nobody waits for his Route's turn.
type restorer struct{ r *Reconciler }

// Start implements manager.Runnable.
func (x restorer) Start(ctx context.Context) error {
	var routes servingv1.RouteList
	if err := x.r.client.List(ctx, &routes); err != nil {
		return fmt.Errorf("listing routes to restore: %w", err)
	}
	entries := map[types.NamespacedName]controller.Entry{}
	for i := range routes.Items {
		route := &routes.Items[i]
		key := client.ObjectKeyFromObject(route)
		e, err := x.r.restore(ctx, key)
		if err != nil {
			x.r.log.Error("restoring a route", "route", key.String(), "error", err)
			continue
		}
		if e != nil {
			entries[key] = *e
		}
	}
	x.r.book.Fill(entries)
	return nil
}

// restore makes a Route's entry as it was last in force; nil when it never was, or is another's.
func (r *Reconciler) restore(ctx context.Context, key types.NamespacedName) (*controller.Entry, error) {
	s, err := r.observe(ctx, key)
	if err != nil || s == nil || !wasServed(*s) {
		return nil, err
	}
	n := r.naming
	n.settings = s.settings
	a := restored(*s)
	hosts, err := n.all(*s, a)
	if err != nil {
		return nil, err
	}
	a.published(*s, hosts)
	e := entryOf(*s, a, hosts)
	return &e, nil
}

// wasServed tells whether the table had the Route. The Ingress knows also while a rollout is under
// way, when the Route is not ready.
func wasServed(s state) bool {
	if s.ingress != nil && controller.Ours(s.ingress) {
		return s.ingress.Status.GetCondition(netv1alpha1.IngressConditionReady).IsTrue()
	}
	return s.ingress == nil && s.route.Status.GetCondition(servingv1.RouteConditionIngressReady).IsTrue()
}

// published puts the shares that the Ingress shows in the place of those of the status, which says
// of a tag's host only what it has of the Route's.
func (a *assignment) published(s state, hosts map[string]host) {
	if s.ingress == nil {
		return
	}
	for i := range s.ingress.Spec.Rules {
		rule := &s.ingress.Spec.Rules[i]
		for tag, targets := range a.byTag {
			if !slices.Contains(rule.Hosts, hosts[tag].local[0]) || rule.HTTP == nil || len(rule.HTTP.Paths) == 0 {
				continue
			}
			path := rule.HTTP.Paths[len(rule.HTTP.Paths)-1] // those before it are for tags by header
			var out []target
			for _, split := range path.Splits {
				if s.revisions[split.ServiceName] == nil {
					continue
				}
				t := target{revision: split.ServiceName, percent: int64(split.Percent)}
				if i := slices.IndexFunc(targets, func(o target) bool { return o.revision == t.revision }); i >= 0 {
					t.tag = targets[i].tag
				}
				out = append(out, t)
			}
			a.byTag[tag] = consolidate(out)
		}
	}
}
