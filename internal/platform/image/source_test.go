package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	corev1 "k8s.io/api/core/v1"
)

// host serves a registry and returns its address; wrap may stand in front of it.
func host(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func source(t *testing.T, mirror string) *Source {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's own credentials
	return Open(mirror, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// put pushes a random image and returns its digest.
func put(t *testing.T, reference string, options ...remote.Option) string {
	t.Helper()
	img, err := random.Image(512, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, options...); err != nil {
		t.Fatal(err)
	}
	return digestOf(t, img)
}

func digestOf(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestMirrorComesFirst(t *testing.T) {
	mirror, far := host(t, nil), host(t, nil)
	s := source(t, mirror)
	theirs := put(t, far+"/team/app:v1")
	if got, err := s.Digest(t.Context(), far+"/team/app:v1", nil); err != nil || got.Name() != far+"/team/app@"+theirs {
		t.Fatalf("before it was loaded: %v, %v", got, err)
	}
	ref, _ := name.ParseReference(far + "/team/app:v1")
	ours := put(t, mirror+"/"+Repository(ref)+":v1")
	got, err := s.Digest(t.Context(), far+"/team/app:v1", nil)
	if err != nil || got.Name() != far+"/team/app@"+ours {
		t.Errorf("after: %v, %v; want %s", got, err, ours)
	}
	for what, reference := range map[string]string{
		"by tag": far + "/team/app:v1", "by digest": far + "/team/app@" + ours, "with tag and digest": far + "/team/app:v1@" + ours,
		"the registry's own by digest": far + "/team/app@" + theirs,
	} {
		img, digest, err := s.Image(t.Context(), reference, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if err := validate.Image(img); err != nil || digest.DigestStr() != digestOf(t, img) || digest.Context().Name() != far+"/team/app" {
			t.Errorf("%s: %v, %v", what, digest, err)
		}
	}
}

func TestMirrorStandsForRegistriesThatCannotBeReached(t *testing.T) {
	mirror := host(t, nil)
	s := source(t, mirror)
	for reference, repository := range map[string]string{
		"gcr.io/knative-samples/helloworld-go": "gcr.io/knative-samples/helloworld-go",
		"nginx":                                "docker.io/library/nginx",
		"docker.io/library/redis:latest":       "docker.io/library/redis",
		"registry.test:5000/a/b/c":             "registry.test_5000/a/b/c",
	} {
		want := put(t, mirror+"/"+repository+":latest")
		got, err := s.Digest(t.Context(), reference, nil)
		if err != nil || got.DigestStr() != want {
			t.Errorf("%s: %v, %v; want %s", reference, got, err, want)
		}
	}
}

func TestOwnReferencesAreReadFromTheMirrorOnly(t *testing.T) {
	mirror := host(t, nil)
	s := source(t, mirror)
	want := put(t, mirror+"/hello:latest")
	_, port, _ := strings.Cut(mirror, ":")
	for _, reference := range []string{mirror + "/hello", "localhost:" + port + "/hello"} {
		if got, err := s.Digest(t.Context(), reference, nil); err != nil || got.DigestStr() != want {
			t.Errorf("%s: %v, %v", reference, got, err)
		}
	}
	_, err := s.Digest(t.Context(), mirror+"/missing", nil)
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("a missing one: %v, want the registry's own words", err)
	}
}

func TestRepositoryNamesAndBack(t *testing.T) {
	for reference, want := range map[string]string{
		"nginx":                             "docker.io/library/nginx",
		"gcr.io/a/b:v1":                     "gcr.io/a/b",
		"localhost:5000/a":                  "localhost_5000/a",
		"10.0.0.1:5000/a/b":                 "10.0.0.1_5000/a/b",
		"[::1]:5000/a":                      "ip6.0000-0000-0000-0000-0000-0000-0000-0001_5000/a",
		"EXAMPLE.com/a@" + emptyHash:        "example.com/a",
		"my-registry.test:443/deep/er/path": "my-registry.test_443/deep/er/path",
	} {
		ref, err := Parse(reference)
		if err != nil {
			t.Errorf("%s: %v", reference, err)
			continue
		}
		got := Repository(ref)
		if got != want {
			t.Errorf("%s is kept in %s, want %s", reference, got, want)
		}
		back, ok := Reference(got)
		if !ok {
			t.Errorf("no way back from %s", got)
			continue
		}
		again, err := Parse(back)
		if err != nil || Repository(again) != want {
			t.Errorf("%s came back as %s (%v)", reference, back, err)
		}
	}
	for _, own := range []string{"hello", "team/hello", "my_team/hello"} {
		if got, ok := Reference(own); ok {
			t.Errorf("%s is the mirror's own, not %s", own, got)
		}
	}
}

const emptyHash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestPlatformIsChosen(t *testing.T) {
	addr := host(t, nil)
	s := source(t, "")
	index := func(platforms ...v1.Platform) v1.ImageIndex {
		out := v1.ImageIndex(empty.Index)
		for _, p := range platforms {
			img, err := random.Image(64, 1)
			if err != nil {
				t.Fatal(err)
			}
			out = mutate.AppendManifests(out, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
		}
		return out
	}
	mine := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	other := v1.Platform{OS: "linux", Architecture: "s390x"}
	attestation := v1.Platform{OS: "unknown", Architecture: "unknown"}
	ref, _ := name.NewTag(addr + "/app:many")
	if err := remote.WriteIndex(ref, index(other, attestation, mine)); err != nil {
		t.Fatal(err)
	}
	img, digest, err := s.Image(t.Context(), ref.Name(), nil)
	if err != nil || validate.Image(img) != nil || digest.DigestStr() == digestOf(t, img) {
		t.Errorf("index with this platform: %v, %v", digest, err)
	}
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index(mine)})
	if img, err := ChooseFrom(nested, Platform()); err != nil || img == nil {
		t.Errorf("index in an index: %v", err)
	}
	if err := remote.WriteIndex(ref, index(other, attestation)); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Image(t.Context(), ref.Name(), nil)
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/s390x") || strings.Contains(err.Error(), "unknown") {
		t.Errorf("index without this platform: %v", err)
	}
}

func TestNewestVariantThatRunsWins(t *testing.T) {
	arm := func(variant string) *v1.Platform {
		return &v1.Platform{OS: "linux", Architecture: "arm", Variant: variant}
	}
	limit := v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	order := []*v1.Platform{arm("v8"), nil, arm("v5"), arm("v6"), arm("v7")}
	for i := 1; i < len(order); i++ {
		if match(order[i-1], limit) >= match(order[i], limit) {
			t.Errorf("%v ranks %d, %v ranks %d", order[i-1], match(order[i-1], limit), order[i], match(order[i], limit))
		}
	}
	if match(order[0], limit) != 0 {
		t.Error("v8 does not run on v7")
	}
	v3 := &v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}
	if match(v3, v1.Platform{OS: "linux", Architecture: "amd64"}) != 0 {
		t.Error("nobody promised amd64 v3")
	}
}

// locked stands before a registry and wants a user and password.
func locked(user, password string, asked *atomic.Int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func pullSecret(host, user, password string, legacy bool) corev1.Secret {
	auths := map[string]any{host: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	}}
	kind, key, value := corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, any(map[string]any{"auths": auths})
	if legacy {
		kind, key, value = corev1.SecretTypeDockercfg, corev1.DockerConfigKey, auths
	}
	content, _ := json.Marshal(value)
	return corev1.Secret{Type: kind, Data: map[string][]byte{key: content}}
}

func TestPullSecretsOpenRegistries(t *testing.T) {
	var asked atomic.Int64
	addr := host(t, locked("me", "secret", &asked))
	s := source(t, "")
	want := put(t, addr+"/app:v1", remote.WithAuth(&authn.Basic{Username: "me", Password: "secret"}))
	chain := func(secrets ...corev1.Secret) authn.Keychain {
		kc, err := PullSecrets(secrets)
		if err != nil {
			t.Fatal(err)
		}
		return kc
	}
	good, wrong := pullSecret(addr, "me", "secret", false), pullSecret(addr, "me", "guess", false)
	elsewhere := pullSecret("registry.test", "me", "secret", false)
	cases := map[string]struct {
		kc   authn.Keychain
		want error
	}{
		"none":            {nil, ErrUnauthorized},
		"wrong":           {chain(wrong), ErrUnauthorized},
		"another's":       {chain(elsewhere), ErrUnauthorized},
		"right":           {chain(good), nil},
		"right, old form": {chain(pullSecret(addr, "me", "secret", true)), nil},
		"among others":    {chain(elsewhere, good), nil},
		"a secret of another type beside": {
			chain(corev1.Secret{Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"x": []byte("y")}}, good), nil,
		},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			got, err := s.Digest(t.Context(), addr+"/app:v1", c.kc)
			if !errors.Is(err, c.want) || err == nil && got.DigestStr() != want {
				t.Errorf("got %v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "guess") {
				t.Errorf("a password in an error: %v", err)
			}
			if c.want == nil {
				if _, _, err := s.Image(t.Context(), addr+"/app@"+want, c.kc); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := PullSecrets([]corev1.Secret{{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{")}}}); err == nil {
		t.Error("a broken secret passed")
	}
}

func TestRefusalsAreRepeatedForAMoment(t *testing.T) {
	var asked atomic.Int64
	addr := host(t, locked("me", "secret", &asked))
	s := source(t, "")
	ask := func() int64 {
		before := asked.Load()
		if _, err := s.Digest(t.Context(), addr+"/app:v1", nil); !errors.Is(err, ErrUnauthorized) {
			t.Error(err)
		}
		return asked.Load() - before
	}
	if ask() == 0 || ask() != 0 {
		t.Error("the first question goes to the registry, the second does not")
	}
	var known refusals
	now := s.refused.byKey
	for key, r := range now {
		known.note(key, r.err, r.until)
		if known.check(key, r.until.Add(refusalAge)) != nil || known.check(key, r.until) == nil {
			t.Error("a refusal must end after its time")
		}
	}
	known.note("mine", fmt.Errorf("asking: %w", context.Canceled), s.refused.byKey["x"].until)
	if len(known.byKey) != len(now) {
		t.Error("a caller's own end is no refusal")
	}
}

func TestQuestionsAreAskedOnce(t *testing.T) {
	var heads atomic.Int64
	release := make(chan struct{})
	addr := host(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/") && heads.Add(1) > 1 {
				<-release
			}
			next.ServeHTTP(w, r)
		})
	})
	s := source(t, "")
	want := put(t, addr+"/app:v1") // pushing asks once too
	heads.Store(1)
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := s.Digest(gone, addr+"/app:v1", nil)
		first <- err
	}()
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if got, err := s.Digest(t.Context(), addr+"/app:v1", nil); err != nil || got.DigestStr() != want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	leave() // one who leaves takes the answer from nobody
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	group.Wait()
	if n := heads.Load(); n > 3 {
		t.Errorf("%d questions", n)
	}
}

func TestReferencesThatAreNone(t *testing.T) {
	s := source(t, "")
	for _, reference := range []string{"", "UPPER/case", "a b", "x@sha256:12", "http://x/y", "../../etc"} {
		if _, err := s.Digest(t.Context(), reference, nil); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %v", reference, err)
		}
		if _, _, err := s.Image(t.Context(), reference, nil); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %v", reference, err)
		}
	}
}
