package route

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	entries := map[types.NamespacedName]entry{}
	for i := range routes.Items {
		route := &routes.Items[i]
		if !route.Status.GetCondition(servingv1.RouteConditionIngressReady).IsTrue() || route.DeletionTimestamp != nil {
			continue
		}
		key := client.ObjectKeyFromObject(route)
		e, err := x.r.restore(ctx, key)
		if err != nil {
			x.r.log.Error("restoring a route", "route", key.String(), "error", err)
			continue
		}
		entries[key] = e
	}
	x.r.book.Fill(entries)
	return nil
}

func (r *Reconciler) restore(ctx context.Context, key types.NamespacedName) (entry, error) {
	s, err := r.observe(ctx, key)
	if err != nil || s == nil {
		return entry{}, err
	}
	n := r.naming
	n.settings = s.settings
	a := restored(*s)
	hosts, err := n.all(*s, a)
	if err != nil {
		return entry{}, err
	}
	return entryOf(*s, a, hosts), nil
}
