package domainmapping

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
)

// restorer fills the chapter, once the cache is there, with what was served before this process
// started, as the Ingresses tell.
type restorer struct{ r *Reconciler }

// Start implements manager.Runnable.
func (x restorer) Start(ctx context.Context) error {
	var list servingv1beta1.DomainMappingList
	if err := x.r.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing domain mappings to restore: %w", err)
	}
	entries := map[types.NamespacedName]controller.Entry{}
	for i := range list.Items {
		s := &state{mapping: &list.Items[i], settings: x.r.settings.Current()}
		if err := x.r.holdings(ctx, s); err != nil {
			x.r.log.Error("restoring a domain mapping", "domain", s.mapping.Name, "error", err)
			continue
		}
		if e := s.restored(); e != nil {
			entries[client.ObjectKeyFromObject(s.mapping)] = *e
		}
	}
	x.r.book.Fill(entries)
	return nil
}

// restored is the entry that was in force, nil for none.
func (s *state) restored() *controller.Entry {
	served := s.mapping.Status.GetCondition(servingv1beta1.DomainMappingConditionIngressReady).IsTrue()
	others := s.claim != nil && s.claim.Spec.Namespace != s.mapping.Namespace
	if !served || others || s.ingress == nil || !controller.Ours(s.ingress) || s.mapping.DeletionTimestamp != nil {
		return nil
	}
	host := render.MappingTarget(s.ingress)
	if host == "" {
		return nil
	}
	return s.entryOf(host)
}
