package scaler_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/component/scaler"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/jobs"
)

var errServer = errors.New("nobody answers")

// server is what a source looks at: a queue that the test sets.
type server struct {
	mu    sync.Mutex
	n     float64
	err   error
	slow  time.Duration // how long an answer takes
	parts time.Duration // how long closing takes
	asked int
	wakes map[*source]func()
	open  int // sources
	kind  autoscalingv2.MetricTargetType
}

func (s *server) set(n float64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.err = n, err
	for _, wake := range s.wakes {
		wake()
	}
}

func (s *server) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// source is one trigger's; pusher is one that tells of changes.
type source struct {
	server *server
	metric string
}

type pusher struct{ *source }

func (s *source) Specs(context.Context) ([]autoscalingv2.MetricSpec, error) {
	return []autoscalingv2.MetricSpec{trigger.Spec(s.metric, s.server.kind, 5)}, nil
}

func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	s.server.mu.Lock()
	s.server.asked++
	slow := s.server.slow
	s.server.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(slow):
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.err != nil {
		return nil, s.server.err
	}
	return []trigger.Reading{{Metric: s.metric, Value: trigger.Quantity(s.server.n), Active: s.server.n > 0}}, nil
}

func (s *source) Close() error {
	s.server.mu.Lock()
	parts := s.server.parts
	s.server.mu.Unlock()
	<-time.After(parts)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.open--
	return nil
}

func (p pusher) Watch(_ trigger.Mode, wake func()) func() {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	p.server.wakes[p.source] = wake
	return func() {}
}

// rig is an engine with its surroundings.
type rig struct {
	*scaler.Engine
	t       *testing.T
	alone   bool               // no autoscaler scales the target
	servers map[string]*server // by type of trigger: "push", "poll", "more"
	end     func()

	mu       sync.Mutex // guards the fields below
	replicas int32
	history  []int32
	starts   []string
	events   []string
	auth     map[string]string
	authErr  error
	signs    []func()
	seen     []jobs.Observation
}

// in runs a test with a rig, by a fake clock.
func in(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, scaler.Config{})
		synctest.Wait()
		test(t, r)
		r.end()
	})
}

// newRig makes a rig whose engine runs until end, and has what a configuration adds to it.
func newRig(t *testing.T, c scaler.Config) *rig {
	t.Helper()
	r := &rig{t: t, servers: map[string]*server{}, auth: map[string]string{"password": ""}}
	builders := map[string]trigger.Build{
		"cpu": func(trigger.Config) (trigger.Source, error) { return &resource{}, nil },
	}
	for _, kind := range []string{"push", "poll", "more"} {
		s := &server{wakes: map[*source]func(){}, kind: autoscalingv2.AverageValueMetricType}
		r.servers[kind] = s
		builders[kind] = func(c trigger.Config) (trigger.Source, error) {
			if c.TriggerMetadata["broken"] != "" {
				return nil, errors.New("broken is not known")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open++
			made := &source{s, fmt.Sprintf("s%d-%s", c.TriggerIndex, kind)}
			if kind == "push" {
				return pusher{made}, nil
			}
			return made, nil
		}
	}
	maps.Copy(builders, c.Builders)
	r.Engine = scaler.New(scaler.Config{
		Builders: builders, Known: func(kind string) bool { return kind != "none" }, Credentials: passwords{r}, Targets: r,
		Starting: func(types.NamespacedName) func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.starts = append(r.starts, fmt.Sprintf("begins at %d", r.replicas))
			return func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.starts = append(r.starts, fmt.Sprintf("ends at %d", r.replicas))
			}
		},
		Tell: r.tell, Work: func(_ types.NamespacedName, seen jobs.Observation) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.seen = append(r.seen, seen)
		},
		Environment: c.Environment, Timeout: c.Timeout, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.end = func() {
		r.Unfollow(key)
		r.Jobs().Unfollow(key)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for kind, s := range r.servers {
			if s.open != 0 {
				t.Errorf("%d sources of type %s were not closed", s.open, kind)
			}
		}
	}
	return r
}

// resource is what the autoscaler reads by itself.
type resource struct{}

func (*resource) Specs(context.Context) ([]autoscalingv2.MetricSpec, error) {
	return []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu"}}}, nil
}
func (*resource) Read(context.Context) ([]trigger.Reading, error) { return nil, nil }
func (*resource) Close() error                                    { return nil }

func (*rig) Resolve(*kedav1alpha1.ScaleTarget) (kedav1alpha1.GroupVersionKindResource, error) {
	return deployments, nil
}

func (r *rig) Horizontal(kedav1alpha1.GroupVersionKindResource) bool { return !r.alone }

func (r *rig) Replicas(context.Context, activation.Target) (int32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replicas, nil
}

func (r *rig) SetReplicas(_ context.Context, _ activation.Target, n int32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replicas = n
	r.history = append(r.history, n)
	return nil
}

func (*rig) Template(context.Context, client.Object) (*corev1.PodTemplateSpec, string, error) {
	return nil, "", nil
}

// passwords are the rig's credentials.
type passwords struct{ *rig }

func (r passwords) Resolve(context.Context, credential.Request) (credential.Resolved, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return credential.Resolved{Params: r.auth}, r.authErr
}

func (r passwords) Watch(_ credential.Request, changed func()) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signs = append(r.signs, changed)
	return func() {}
}

func (r *rig) tell(_ *kedav1alpha1.ScaledObject, kind, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, kind+" "+reason+": "+message)
}

func (r *rig) told(event string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range r.events {
		if e == event {
			n++
		}
	}
	return n
}

var deployments = kedav1alpha1.GroupVersionKindResource{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments"}

var key = types.NamespacedName{Namespace: "shop", Name: "orders"}

// object returns a ScaledObject with triggers of those types.
func object(kinds ...string) *kedav1alpha1.ScaledObject {
	so := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, Generation: 1, CreationTimestamp: metav1.Now(), Annotations: map[string]string{},
	}}
	so.Spec.ScaleTargetRef = &kedav1alpha1.ScaleTarget{Name: "worker"}
	for i, kind := range kinds {
		so.Spec.Triggers = append(so.Spec.Triggers, kedav1alpha1.ScaleTriggers{Type: kind, Name: fmt.Sprintf("t%d", i), Metadata: map[string]string{}})
	}
	so.Status.ScaleTargetGVKR = new(deployments)
	return so
}

func (r *rig) follow(so *kedav1alpha1.ScaledObject) activation.Followed {
	r.t.Helper()
	f, err := r.Follow(r.t.Context(), so)
	if err != nil {
		r.t.Fatalf("Follow() fails with %v", err)
	}
	return f
}

// after lets time pass and expects a number of replicas.
func (r *rig) after(d time.Duration, want int32, what string) {
	r.t.Helper()
	<-time.After(d)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.replicas != want {
		r.t.Errorf("%s: %d replicas, want %d (written so far: %d)", what, r.replicas, want, r.history)
	}
}

// ready returns the condition Ready, as status and reason.
func (r *rig) condition(kind kedav1alpha1.ConditionType) string {
	state, _ := r.State(key)
	for _, c := range state.Conditions {
		if c.Type == kind {
			return string(c.Status) + " " + c.Reason
		}
	}
	return ""
}

func (r *rig) metric(name string) string {
	values, err := r.Metric(r.t.Context(), key.Namespace, key.Name, name)
	if err != nil {
		return err.Error()
	}
	if len(values) != 1 {
		return fmt.Sprint(values)
	}
	return values[0].Value.String()
}
