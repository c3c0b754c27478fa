package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
)

// managedBy labels the objects made here.
var managedBy = map[string]string{"app.kubernetes.io/managed-by": "ebb"}

// registerLocals makes the APIServices of local APIs and waits until they are served: one that is
// registered and unavailable would hold up garbage collection and the end of every namespace.
func (c *Cluster) registerLocals(ctx context.Context) error {
	cfg := c.RESTConfig()
	core, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	registry, err := aggregator.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	for _, l := range c.cfg.Locals {
		if len(l.APIs) == 0 {
			continue
		}
		if err := applyService(ctx, core, l); err != nil {
			return err
		}
		for _, gv := range l.APIs {
			if err := applyReader(ctx, core, gv.Group); err != nil {
				return err
			}
			if err := c.applyAPIService(ctx, registry.APIServices(), l, gv); err != nil {
				return err
			}
		}
	}
	for _, l := range c.cfg.Locals {
		for _, gv := range l.APIs {
			if err := waitAvailable(ctx, registry.APIServices(), gv.Version+"."+gv.Group); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyService makes the Service an APIService must name. It is an ExternalName because no address
// leads to it: the API server finds it by our resolver, other clients by the API.
func applyService(ctx context.Context, core kubernetes.Interface, l Local) error {
	_, err := core.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.Namespace, Labels: managedBy}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making namespace %s: %w", l.Namespace, err)
	}
	_, err = core.CoreV1().Services(l.Namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: l.Name, Namespace: l.Namespace, Labels: managedBy},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "kubernetes.default.svc.cluster.local"},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making service %s/%s: %w", l.Namespace, l.Name, err)
	}
	return nil
}

// applyReader lets those who may view a namespace read the group's objects in it too.
func applyReader(ctx context.Context, core kubernetes.Interface, group string) error {
	labels := maps.Clone(managedBy)
	for _, role := range []string{"view", "edit", "admin"} {
		labels["rbac.authorization.k8s.io/aggregate-to-"+role] = "true"
	}
	_, err := core.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "ebb:read:" + group, Labels: labels},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("letting viewers read %s: %w", group, err)
	}
	return nil
}

func (c *Cluster) applyAPIService(ctx context.Context, client aggregator.APIServiceInterface, l Local, gv GroupVersion) error {
	port := int32(443)
	want := apiregistration.APIServiceSpec{
		Service:              &apiregistration.ServiceReference{Namespace: l.Namespace, Name: l.Name, Port: &port},
		Group:                gv.Group,
		Version:              gv.Version,
		CABundle:             c.CABundle(),
		GroupPriorityMinimum: gv.GroupPriority,
		VersionPriority:      gv.VersionPriority,
	}
	name := gv.Version + "." + gv.Group
	_, err := client.Create(ctx, &apiregistration.APIService{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: managedBy}, Spec: want}, metav1.CreateOptions{})
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering API %s: %w", name, err)
	}
	have, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("registering API %s: %w", name, err)
	}
	if have.Labels["app.kubernetes.io/managed-by"] != "ebb" {
		c.log.Info("leaving an API to who registered it", "api", name)
		return nil
	}
	have.Spec = want
	if _, err := client.Update(ctx, have, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("registering API %s: %w", name, err)
	}
	return nil
}

// waitAvailable returns once an APIService of ours is served. One that somebody else replaced is
// their matter.
func waitAvailable(ctx context.Context, client aggregator.APIServiceInterface, name string) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		have, err := client.Get(ctx, name, metav1.GetOptions{})
		if err == nil && (available(have) || have.Labels["app.kubernetes.io/managed-by"] != "ebb") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for API %s: %w", name, errors.Join(context.Cause(ctx), err))
		case <-t.C:
		}
	}
}

func available(s *apiregistration.APIService) bool {
	for _, cond := range s.Status.Conditions {
		if cond.Type == apiregistration.Available {
			return cond.Status == apiregistration.ConditionTrue
		}
	}
	return false
}
