package revision

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/deployment"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/platform/kube"
)

// registry answers with a digest once it has failed so often.
type registry struct {
	failures int
	takes    time.Duration
	asked    []time.Time
	keychain authn.Keychain
}

var errDown = errors.New("registry is down")

func (r *registry) Digest(_ context.Context, ref string, kc authn.Keychain) (name.Digest, error) {
	time.Sleep(r.takes)
	r.asked = append(r.asked, time.Now())
	r.keychain = kc
	if len(r.asked) <= r.failures {
		return name.Digest{}, errDown
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return name.Digest{}, err
	}
	return tag.Context().Digest("sha256:abc"), nil
}

func resolverOf(r *registry, fire func(types.NamespacedName), objects ...client.Object) *resolver {
	return &resolver{
		images: r, reader: fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).Build(),
		fire: fire, log: slog.New(slog.DiscardHandler), slots: make(chan struct{}, 2), results: map[types.NamespacedName]*lookup{},
		config: func() *deployment.Config { return deployments(nil) },
	}
}

// deployments is config-deployment with the keys given.
func deployments(keys map[string]string) *deployment.Config {
	data := map[string]string{deployment.QueueSidecarImageKey: "none"}
	maps.Copy(data, keys)
	d, _ := deployment.NewConfigFromMap(data) // nil where a test names a key wrongly
	return d
}

func TestSkippingARegistryEndsTheFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := &registry{failures: 100}
		r := resolverOf(images, func(types.NamespacedName) {})
		var keys atomic.Pointer[map[string]string]
		keys.Store(&map[string]string{})
		r.config = func() *deployment.Config { return deployments(*keys.Load()) }
		rev := revisionFixture()
		if d := r.Resolve(t.Context(), rev); d.err == nil {
			t.Fatalf("%+v, want the registry's error", d)
		}
		keys.Store(&map[string]string{"registries-skipping-tag-resolving": "example.com"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d := r.Resolve(t.Context(), rev); !d.done || d.err != nil || d.containers[0].ImageDigest != "" {
			t.Errorf("with the registry skipped %+v, want the image as it is", d)
		}
	})
}

func TestResolveTriesAgainEverMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := &registry{failures: 3}
		told := 0
		r := resolverOf(images, func(types.NamespacedName) { told++ })
		rev := revisionFixture()
		if d := r.Resolve(t.Context(), rev); !errors.Is(d.err, errDown) {
			t.Fatalf("after the first try %+v, want its error", d)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		d := r.Resolve(t.Context(), rev)
		if !d.done || d.containers[0].ImageDigest != "example.com/hello@sha256:abc" {
			t.Errorf("in the end %+v, want the digest", d)
		}
		if told != 4 || len(images.asked) != 4 {
			t.Errorf("told %d times of %d tries, want 4 of 4", told, len(images.asked))
		}
		if gap := images.asked[3].Sub(images.asked[2]); gap != 4*time.Second {
			t.Errorf("third pause %s, want 4s", gap)
		}
	})
}

func TestResolveWaitsOnlyAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := &registry{takes: time.Second}
		r := resolverOf(images, func(types.NamespacedName) {})
		begun := time.Now()
		if d := r.Resolve(t.Context(), revisionFixture()); d.done || d.err != nil || time.Since(begun) > patience {
			t.Errorf("after %s %+v, want nothing yet", time.Since(begun), d)
		}
		time.Sleep(2 * time.Second)
		if d := r.Resolve(t.Context(), revisionFixture()); !d.done {
			t.Errorf("in the end %+v, want the digest", d)
		}
	})
}

func TestForgettingEndsTheLookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := &registry{failures: 100}
		r := resolverOf(images, func(types.NamespacedName) {})
		rev := revisionFixture()
		r.Resolve(t.Context(), rev)
		synctest.Wait()
		r.Forget(client.ObjectKeyFromObject(rev))
		time.Sleep(time.Hour)
		if len(images.asked) != 1 {
			t.Errorf("asked %d times, want once", len(images.asked))
		}
	})
}

func TestResolveSkipsAndReuses(t *testing.T) {
	const digest = "example.com/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	tests := map[string]struct {
		image string
		want  string
		asked int
	}{
		"a tag is looked up":                 {"example.com/a:v1", "example.com/a@sha256:abc", 1},
		"a digest is itself":                 {digest, digest, 0},
		"a registry on the skip list is not": {"ko.local/a:v1", "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			images := &registry{}
			rev := revisionFixture()
			rev.Spec.Containers = []corev1.Container{{Name: "a", Image: tt.image}, {Name: "b", Image: tt.image}}
			d := resolverOf(images, nil).attempt(t.Context(), rev)
			if d.err != nil || len(d.containers) != 2 || d.containers[1].ImageDigest != tt.want {
				t.Errorf("got %+v, want %q", d, tt.want)
			}
			if len(images.asked) != tt.asked {
				t.Errorf("asked %d times, want %d", len(images.asked), tt.asked)
			}
		})
	}
}

func TestResolveUsesPullSecretsOfRevisionAndAccount(t *testing.T) {
	secret := func(name, host string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Type:       corev1.SecretTypeDockerConfigJson,
			Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"` + host + `":{"username":"u","password":"p"}}}`)},
		}
	}
	account := &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: "shop", Name: "default"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "of-account"}, {Name: "missing"}},
	}
	images := &registry{}
	rev := revisionFixture()
	rev.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "of-revision"}}
	r := resolverOf(images, nil, account, secret("of-account", "a.example.com"), secret("of-revision", "b.example.com"))
	if d := r.attempt(t.Context(), rev); d.err != nil {
		t.Fatal(d.err)
	}
	for _, host := range []string{"a.example.com", "b.example.com"} {
		repository, err := name.NewRepository(host + "/x")
		if err != nil {
			t.Fatal(err)
		}
		auth, err := images.keychain.Resolve(repository)
		if err != nil || auth == authn.Anonymous {
			t.Errorf("%s: no credentials (%v)", host, err)
		}
	}
}
