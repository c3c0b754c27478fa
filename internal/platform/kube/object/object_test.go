package object

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	kubetesting "k8s.io/client-go/testing"
)

// api is a fake Kubernetes API whose watches tests feed.
type api struct {
	*fake.FakeDynamicClient

	gets, lists, watches atomic.Int32
	down                 atomic.Bool

	mu        sync.Mutex // guards both
	feeds     []*watch.FakeWatcher
	selectors []string
}

func newAPI(t *testing.T, objects ...runtime.Object) *api {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), kedav1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	a := &api{FakeDynamicClient: fake.NewSimpleDynamicClient(scheme, objects...)}
	refuse := func(count *atomic.Int32) kubetesting.ReactionFunc {
		return func(kubetesting.Action) (bool, runtime.Object, error) {
			count.Add(1)
			return a.down.Load(), nil, errors.New("connection refused")
		}
	}
	a.PrependReactor("get", "*", refuse(&a.gets))
	a.PrependReactor("list", "*", refuse(&a.lists))
	a.PrependWatchReactor("*", func(action kubetesting.Action) (bool, watch.Interface, error) {
		a.watches.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.down.Load() {
			return true, nil, errors.New("connection refused")
		}
		if w, ok := action.(kubetesting.WatchActionImpl); ok {
			a.selectors = append(a.selectors, w.ListOptions.FieldSelector)
		}
		a.feeds = append(a.feeds, watch.NewFakeWithChanSize(8, false))
		return true, a.feeds[len(a.feeds)-1], nil
	})
	return a
}

func (a *api) last() *watch.FakeWatcher {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.feeds[len(a.feeds)-1]
}

func secret(name, version, value string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: version},
		Data:       map[string][]byte{"key": []byte(value)},
	}
}

func loose(t *testing.T, o runtime.Object) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

func value(t *testing.T, s *Store, name string) string {
	t.Helper()
	have, err := Secrets.Get(t.Context(), s, "default", name)
	if apierrors.IsNotFound(err) {
		return "missing"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(have.Data["key"])
}

func TestOneWatchServesAllWhoFollowAnObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, secret("mine", "1", "old"), secret("other", "1", "other"))
		s := New(t.Context(), a, slog.New(slog.DiscardHandler))
		var told atomic.Int32
		var stops []func()
		for range 2000 {
			stops = append(stops, s.Watch(Secrets.Key("default", "mine"), func() { told.Add(1) }))
		}
		synctest.Wait()
		if got := value(t, s, "mine"); got != "old" || a.gets.Load() != 0 || a.watches.Load() != 1 || s.Len() != 1 {
			t.Fatalf("%q by %d gets and %d watches, want it from memory by one watch", got, a.gets.Load(), a.watches.Load())
		}
		if a.selectors[0] != "metadata.name=mine" {
			t.Errorf("watched by %q, want the object alone", a.selectors[0])
		}
		a.last().Modify(loose(t, secret("other", "2", "not ours")))
		a.last().Modify(loose(t, secret("mine", "1", "old")))
		synctest.Wait()
		if told.Load() != 0 {
			t.Errorf("told %d times of nothing", told.Load())
		}
		a.last().Modify(loose(t, secret("mine", "2", "new")))
		synctest.Wait()
		if got := value(t, s, "mine"); got != "new" || told.Load() != 2000 {
			t.Errorf("%q, told %d, want the new value and all told", got, told.Load())
		}
		a.last().Delete(loose(t, secret("mine", "3", "new")))
		synctest.Wait()
		if got := value(t, s, "mine"); got != "missing" || told.Load() != 4000 {
			t.Errorf("%q, told %d after it was deleted", got, told.Load())
		}
		for _, stop := range stops {
			stop()
			stop()
		}
		synctest.Wait()
		if s.Len() != 0 || !a.last().IsStopped() {
			t.Error("the watch outlives those who follow")
		}
	})
}

func TestAChangeBetweenReadingAndFollowingIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		change bool
		before bool // somebody else follows already
		want   int32
	}{
		"nothing changed":            {want: 0},
		"changed":                    {change: true, want: 1},
		"changed, followed by then":  {change: true, before: true, want: 1},
		"followed by then, the same": {before: true, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, secret("mine", "1", "old"))
				s := New(t.Context(), a, slog.New(slog.DiscardHandler))
				value(t, s, "mine")
				if tt.change {
					if err := a.Tracker().Update(Secrets.resource, loose(t, secret("mine", "2", "new")), "default"); err != nil {
						t.Fatal(err)
					}
				}
				if tt.before {
					defer s.Watch(Secrets.Key("default", "mine"), func() {})()
					synctest.Wait()
				}
				var told atomic.Int32
				defer s.Watch(Secrets.Key("default", "mine"), func() { told.Add(1) })()
				synctest.Wait()
				if told.Load() != tt.want {
					t.Errorf("told %d times, want %d", told.Load(), tt.want)
				}
			})
		})
	}
}

func TestAWatchOutlivesTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, secret("mine", "1", "old"))
		s := New(t.Context(), a, slog.New(slog.DiscardHandler))
		var told atomic.Int32
		defer s.Watch(Secrets.Key("default", "mine"), func() { told.Add(1) })()
		synctest.Wait()
		a.down.Store(true)
		a.last().Stop()
		time.Sleep(time.Minute)
		if got := value(t, s, "mine"); got != "old" {
			t.Errorf("%q while the API is down, want what was known", got)
		}
		if n := a.lists.Load(); n > 30 {
			t.Errorf("%d attempts in a minute", n)
		}
		if err := a.Tracker().Update(Secrets.resource, loose(t, secret("mine", "7", "new")), "default"); err != nil {
			t.Fatal(err)
		}
		a.down.Store(false)
		time.Sleep(mostPause)
		synctest.Wait()
		if got := value(t, s, "mine"); got != "new" || told.Load() != 1 {
			t.Errorf("%q, told %d, want what changed in between", got, told.Load())
		}
		a.last().Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
		time.Sleep(mostPause)
		synctest.Wait()
		if told.Load() != 1 || len(a.feeds) < 3 {
			t.Errorf("told %d after an old version expired, %d watches", told.Load(), len(a.feeds))
		}
	})
}

func TestWhatCannotBeFollowedIsReadFromTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, secret("mine", "1", "old"))
		s := New(t.Context(), a, slog.New(slog.DiscardHandler))
		if got := value(t, s, "none"); got != "missing" {
			t.Errorf("%q, want none", got)
		}
		a.down.Store(true)
		var firsts atomic.Int32
		defer s.WatchFirst(Secrets.Key("default", "mine"), func(changed bool) {
			if !changed {
				firsts.Add(1)
			}
		})()
		synctest.Wait()
		if _, err := Secrets.Get(t.Context(), s, "default", "mine"); err == nil || apierrors.IsNotFound(err) {
			t.Errorf("error %v, want that of the API", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Secrets.Get(ctx, s, "default", "mine"); err == nil {
			t.Error("read without an API")
		}
		a.down.Store(false)
		if got := value(t, s, "mine"); got != "old" {
			t.Errorf("%q, want what the API has", got)
		}
		time.Sleep(mostPause)
		synctest.Wait()
		if firsts.Load() != 1 {
			t.Errorf("told %d times that it is in memory", firsts.Load())
		}
	})
}
