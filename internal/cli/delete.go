package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func deleteCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "delete service...",
		Short: "Remove services; requests in flight are finished",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := o.connect()
			if err != nil {
				return err
			}
			for _, name := range args {
				service := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: name}}
				err := s.Delete(c.Context(), service)
				if apierrors.IsNotFound(err) {
					return fmt.Errorf("no service %s in namespace %s; `ebb get services -A` lists all", name, o.namespace)
				}
				if err != nil {
					return o.explain(fmt.Errorf("deleting service %s: %w", name, err))
				}
				_, _ = fmt.Fprintf(c.OutOrStdout(), "service %s deleted\n", name)
			}
			return nil
		},
	}
	return o.withNamespace(c)
}
