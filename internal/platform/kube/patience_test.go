package kube

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// api is a client whose statuses go to writes.
type api struct {
	client.Client

	writes *writes
}

func (a api) Status() client.SubResourceWriter { return a.writes }

// writes remembers the statuses it was given.
type writes struct {
	client.SubResourceWriter

	began time.Time
	fail  []error // of the next writes
	seen  []written
}

type written struct {
	after  time.Duration
	latest string // LatestCreatedRevisionName, which tells the statuses apart
}

func (w *writes) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	if len(w.fail) > 0 {
		err := w.fail[0]
		w.fail = w.fail[1:]
		return err
	}
	if s, ok := o.(*servingv1.Service); ok {
		w.seen = append(w.seen, written{time.Since(w.began), s.Status.LatestCreatedRevisionName})
	}
	return nil
}

func onItsWay(latest string) *servingv1.Service {
	s := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hello", UID: types.UID("one"), CreationTimestamp: metav1.Now()}}
	s.Status.InitializeConditions()
	s.Status.LatestCreatedRevisionName = latest
	return s
}

func failed(latest string) *servingv1.Service {
	s := onItsWay(latest)
	s.Status.MarkRevisionNameTaken("hello-one")
	return s
}

// notOwned says that a child belongs to somebody else.
func notOwned(latest string) *servingv1.Service {
	s := onItsWay(latest)
	s.Status.MarkConfigurationNotOwned("hello")
	return s
}

func TestStatusesThatDecideNothingSettle(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{}, "hello", errors.New("newer"))
	for name, c := range map[string]struct {
		fail   []error
		script func(update func(*servingv1.Service))
		want   []written
	}{
		"one waits": {nil, func(u func(*servingv1.Service)) { u(onItsWay("a")) }, []written{{settleTime, "a"}}},
		"the latest goes, when the first had to": {nil, func(u func(*servingv1.Service)) {
			u(onItsWay("a"))
			time.Sleep(settleTime / 2)
			u(onItsWay("b"))
		}, []written{{settleTime, "b"}}},
		"a decision goes at once, alone": {nil, func(u func(*servingv1.Service)) {
			u(onItsWay("a"))
			u(failed("b"))
		}, []written{{0, "b"}}},
		"after a decision all go at once": {nil, func(u func(*servingv1.Service)) {
			u(failed("a"))
			u(onItsWay("b"))
		}, []written{{0, "a"}, {0, "b"}}},
		"a child of a former object waits to go": {nil, func(u func(*servingv1.Service)) {
			u(notOwned("a"))
			u(failed("b"))
		}, []written{{0, "b"}}},
		"a child of another is told": {nil, func(u func(*servingv1.Service)) { u(notOwned("a")) }, []written{{settleTime, "a"}}},
		"an old object's goes at once": {nil, func(u func(*servingv1.Service)) {
			s := onItsWay("a")
			s.CreationTimestamp = metav1.NewTime(time.Now().Add(-young))
			u(s)
		}, []written{{0, "a"}}},
		"a conflict ends it":       {[]error{conflict}, func(u func(*servingv1.Service)) { u(onItsWay("a")) }, nil},
		"a failure is tried again": {[]error{errors.New("down")}, func(u func(*servingv1.Service)) { u(onItsWay("a")) }, []written{{settleTime + holdRetry, "a"}}},
		"but not over a newer one": {[]error{errors.New("down")}, func(u func(*servingv1.Service)) {
			u(onItsWay("a"))
			time.Sleep(settleTime + holdRetry/2)
			u(failed("b"))
		}, []written{{settleTime + holdRetry/2, "b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &writes{began: time.Now(), fail: c.fail}
				p := newPatient(api{writes: w}, slog.New(slog.DiscardHandler), nil)
				c.script(func(s *servingv1.Service) {
					if err := p.Status().Update(t.Context(), s); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Equal(w.seen, c.want) {
					t.Errorf("written %v, want %v", w.seen, c.want)
				}
				if len(p.held)+len(p.decided) > 0 {
					t.Errorf("%d statuses are still held, %d decisions remembered", len(p.held), len(p.decided))
				}
			})
		})
	}
}

func TestAServiceOnItsWayClosesTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{}
		p := newPatient(api{writes: &writes{}}, slog.New(slog.DiscardHandler), &Starts{Gate: g, AtMost: time.Hour})
		for _, step := range []struct {
			status *servingv1.Service
			busy   bool
		}{{onItsWay(""), true}, {failed(""), false}} {
			if err := p.Status().Update(t.Context(), step.status); err != nil {
				t.Fatal(err)
			}
			if g.Busy() != step.busy {
				t.Errorf("gate closed = %v, want %v", g.Busy(), step.busy)
			}
		}
	})
}
