package credential

import (
	"sync"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// Watch has changed called after what Resolve would answer may have changed, until stop is called: it
// follows the authentication that a request names and the objects that this and the container name,
// each alone. What changed between an earlier Resolve and Watch is told, too. It returns at once;
// changed does not block, and comes now and then without a change.
func (r *Resolver) Watch(q Request, changed func()) (stop func()) {
	w := &watcher{r: r, q: q, changed: changed, stops: map[object.Key]func(){}}
	w.follow()
	if q.Ref == nil || q.Ref.Name == "" || q.Namespace == "" {
		return w.stop
	}
	key, _, err := r.keyOf(q)
	if err != nil {
		return w.stop // nothing that could change
	}
	unfollow := r.objects.WatchFirst(key, func(changed bool) {
		w.follow()
		if changed {
			w.changed()
		}
	})
	return func() {
		unfollow()
		w.stop()
	}
}

// watcher follows what a request needs; which objects that are changes with its authentication.
type watcher struct {
	r       *Resolver
	q       Request
	changed func()

	mu      sync.Mutex // guards both
	stops   map[object.Key]func()
	stopped bool
}

// follow begins with the objects that are named now and lets go of the others.
func (w *watcher) follow() {
	wanted := w.r.named(w.q)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	for key, stop := range w.stops {
		if !wanted[key] {
			stop()
			delete(w.stops, key)
		}
	}
	for key := range wanted {
		if w.stops[key] == nil {
			w.stops[key] = w.r.objects.Watch(key, w.changed)
		}
	}
}

func (w *watcher) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	for _, stop := range w.stops {
		stop()
	}
	w.stops = nil
}

// named are the objects that a request needs, besides its authentication: all of them are known only
// once that is in memory.
func (r *Resolver) named(q Request) map[object.Key]bool {
	out := map[object.Key]bool{}
	x := &resolution{r: r, q: q}
	if q.Pod != nil {
		x.namedByContainer(q.Container, out)
	}
	if q.Ref == nil || q.Ref.Name == "" || q.Namespace == "" {
		return out
	}
	key, namespace, err := r.keyOf(q)
	if err != nil {
		return out
	}
	spec := r.inMemory(q)
	if spec == nil {
		return out
	}
	x.auth = authentication{key: key, namespace: namespace, spec: spec}
	x.namedByAuthentication(out)
	return out
}

// inMemory is the authentication a request names if it is followed already.
func (r *Resolver) inMemory(q Request) *kedav1alpha1.TriggerAuthenticationSpec {
	if q.Ref.Kind == clusterKind {
		if o := object.ClusterTriggerAuthentications.Peek(r.objects, "", q.Ref.Name); o != nil {
			return &o.Spec
		}
		return nil
	}
	if o := object.TriggerAuthentications.Peek(r.objects, q.Namespace, q.Ref.Name); o != nil {
		return &o.Spec
	}
	return nil
}

func (x *resolution) namedByAuthentication(out map[object.Key]bool) {
	spec := x.auth.spec
	if spec.FilePath != "" {
		return
	}
	for _, e := range spec.Env {
		if x.q.Pod != nil {
			x.namedByContainer(e.ContainerName, out)
		}
	}
	for _, e := range spec.ConfigMapTargetRef {
		out[object.ConfigMaps.Key(x.auth.namespace, e.Name)] = true
	}
	for _, ref := range x.signs() {
		if ref.Name != "" {
			out[object.Secrets.Key(x.r.secretsIn(x.auth.namespace), ref.Name)] = true
		}
	}
	identities := []*kedav1alpha1.AuthPodIdentity{spec.PodIdentity}
	if spec.AwsSecretManager != nil {
		identities = append(identities, spec.AwsSecretManager.PodIdentity)
	}
	for _, id := range identities {
		if x.q.Pod != nil && id != nil && (id.Provider == kedav1alpha1.PodIdentityProviderAwsEKS || id.IsWorkloadIdentityOwner()) {
			out[object.ServiceAccounts.Key(x.q.Namespace, serviceAccount(x.q))] = true
		}
	}
}

// signs are all Secrets that the authentication names.
func (x *resolution) signs() []kedav1alpha1.SecretKeyRef {
	spec := x.auth.spec
	var out []kedav1alpha1.SecretKeyRef
	for _, e := range spec.SecretTargetRef {
		out = append(out, kedav1alpha1.SecretKeyRef{Name: e.Name, Key: e.Key})
	}
	for _, s := range x.r.options.Safes {
		if s.Asked(spec) {
			out = append(out, s.Signs(spec)...)
		}
	}
	if spec.OAuth2 != nil {
		out = append(out, spec.OAuth2.ClientSecret.ValueFrom.SecretKeyRef)
	}
	if p := spec.AzureServicePrincipal; p != nil {
		for _, c := range []*kedav1alpha1.AzureServicePrincipalCredential{p.ClientSecret, p.ClientCertificate, p.ClientCertificatePassword} {
			if c != nil {
				out = append(out, c.ValueFrom.SecretKeyRef)
			}
		}
	}
	return out
}

// namedByContainer are the objects that the environment of a container comes from.
func (x *resolution) namedByContainer(name string, out map[object.Key]bool) {
	c, err := container(x.q.Pod, name)
	if err != nil {
		return
	}
	add := func(configMap *corev1.LocalObjectReference, secret *corev1.LocalObjectReference) {
		if configMap != nil {
			out[object.ConfigMaps.Key(x.q.Namespace, configMap.Name)] = true
		}
		if secret != nil && x.secretsOpen() {
			out[object.Secrets.Key(x.q.Namespace, secret.Name)] = true
		}
	}
	for i := range c.EnvFrom {
		from := &c.EnvFrom[i]
		if from.ConfigMapRef != nil {
			add(&from.ConfigMapRef.LocalObjectReference, nil)
		} else if from.SecretRef != nil {
			add(nil, &from.SecretRef.LocalObjectReference)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil || c.Env[i].Value != "" {
			continue
		}
		if from.SecretKeyRef != nil {
			add(nil, &from.SecretKeyRef.LocalObjectReference)
		} else if from.ConfigMapKeyRef != nil {
			add(&from.ConfigMapKeyRef.LocalObjectReference, nil)
		}
	}
}
