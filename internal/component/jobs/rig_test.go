package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	batchclient "k8s.io/client-go/kubernetes/typed/batch/v1"
	"k8s.io/client-go/tools/events"

	"ebb.dev/ebb/internal/component/jobs"
	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

var key = types.NamespacedName{Namespace: "shop", Name: "orders"}

// observer is a source of work whose queue the test sets.
type observer struct {
	engine *jobs.Engine

	mu       sync.Mutex // guards all below
	queue    float64
	trouble  error
	follows  int
	unfollow int
	refresh  int
	silent   bool // refreshing has no observation
	failed   []activation.FailedTrigger
	err      error
	slow     time.Duration // of Follow
}

func (o *observer) Follow(_ context.Context, scaled *kedav1alpha1.ScaledJob) ([]activation.FailedTrigger, error) {
	o.mu.Lock()
	slow := o.slow
	o.mu.Unlock()
	time.Sleep(slow)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.follows++
	return o.failed, o.err
}

func (o *observer) Unfollow(types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unfollow++
}

func (o *observer) Refresh(types.NamespacedName) {
	o.mu.Lock()
	o.refresh++
	silent := o.silent
	o.mu.Unlock()
	if !silent {
		go o.observe(time.Now())
	}
}

// observe asks the source as if that began then.
func (o *observer) observe(then time.Time) {
	o.mu.Lock()
	queue, trouble := o.queue, o.trouble
	o.mu.Unlock()
	o.engine.Observe(key, rules.Observation{Began: then, Triggers: []rules.Answer{trigger(queue, trouble)}})
}

func (o *observer) set(queue float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = queue
}

func trigger(queue float64, trouble error) rules.Answer {
	t := rules.Answer{Type: "redis", Targets: []rules.Target{{Metric: "s0-q", Average: 1}}, Err: trouble}
	if trouble == nil {
		t.Readings = []rules.Reading{{Metric: "s0-q", Value: queue, Active: queue > 0}}
	}
	return t
}

// rig is an engine on a fake API.
type rig struct {
	*jobs.Engine
	t        *testing.T
	client   *fake.Clientset
	observer *observer
	recorder *events.FakeRecorder
	registry *prometheus.Registry

	mu      sync.Mutex // guards all below
	made    int
	slow    time.Duration
	fails   func(name string) error // of creating
	lost    error                   // instead of the next answer
	refused int                     // Jobs
}

// inBubble runs fn with a rig whose engine runs.
func inBubble(t *testing.T, fn func(t *testing.T, r *rig), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{
			t: t, client: fake.NewClientset(objects...), observer: &observer{},
			recorder: events.NewFakeRecorder(1000), registry: prometheus.NewRegistry(),
		}
		engine, err := jobs.New(jobs.Config{
			Client: api{r.client, r}, Observer: r.observer, Events: r.recorder, Version: "1.2.3",
			Registerer: r.registry, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Engine, r.observer.engine = engine, engine
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx) }()
		fn(t, r)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("running: %v", err)
		}
		r.settle()
	})
}

// api is the fake clientset but for creating Jobs, which takes time, may be refused, and gives UIDs.
type api struct {
	kubernetes.Interface
	rig *rig
}

// IsWatchListSemanticsUnSupported says so, as the fake clientset does.
func (a api) IsWatchListSemanticsUnSupported() bool { return true }

func (a api) BatchV1() batchclient.BatchV1Interface { return batch{a.Interface.BatchV1(), a.rig} }

type batch struct {
	batchclient.BatchV1Interface
	rig *rig
}

func (b batch) Jobs(namespace string) batchclient.JobInterface {
	return creating{b.BatchV1Interface.Jobs(namespace), b.rig}
}

type creating struct {
	batchclient.JobInterface
	rig *rig
}

func (c creating) Create(ctx context.Context, job *batchv1.Job, o metav1.CreateOptions) (*batchv1.Job, error) {
	r := c.rig
	r.mu.Lock()
	slow, fails := r.slow, r.fails
	r.mu.Unlock()
	time.Sleep(slow)
	if fails != nil {
		if err := fails(job.Name); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused++
			return nil, err
		}
	}
	r.mu.Lock()
	r.made++
	job = job.DeepCopy()
	job.UID, job.CreationTimestamp = types.UID(fmt.Sprintf("uid-%d", r.made)), metav1.Now()
	lost := r.lost
	r.lost = nil
	r.mu.Unlock()
	made, err := c.JobInterface.Create(ctx, job, o)
	if lost != nil {
		return nil, lost
	}
	return made, err
}

// refuse has the API take no Jobs for a reason, or take them again; it returns how often it did so before.
func (r *rig) refuse(why func(name string) error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.refused
	r.fails, r.refused = why, 0
	return n
}

// delay has the API take its time to make a Job.
func (r *rig) delay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = d
}

// settle lets everything that is due now happen.
func (r *rig) settle() { synctest.Wait() }

// wait lets time pass.
func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// observe asks the source, which has that much work, now.
func (r *rig) observe(queue float64) {
	r.observer.set(queue)
	r.observer.observe(time.Now())
	r.settle()
}

func (r *rig) follow(scaled *kedav1alpha1.ScaledJob) {
	r.t.Helper()
	if err := r.Follow(r.t.Context(), scaled); err != nil {
		r.t.Fatal(err)
	}
	r.settle()
}

// jobs lists what the API has, in the order in which they were made.
func (r *rig) jobs() []batchv1.Job {
	r.t.Helper()
	list, err := r.client.BatchV1().Jobs(key.Namespace).List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b batchv1.Job) int { return strings.Compare(string(a.UID), string(b.UID)) })
	return list.Items
}

func (r *rig) want(n int, why string) {
	r.t.Helper()
	if got := len(r.jobs()); got != n {
		account, _ := r.Explain(key)
		r.t.Fatalf("%s: %d jobs, want %d (%s)", why, got, n, account.Message)
	}
}

// update changes the status of the nth Job that there is.
func (r *rig) update(n int, change func(*batchv1.JobStatus)) {
	r.t.Helper()
	job := r.jobs()[n]
	change(&job.Status)
	if _, err := r.client.BatchV1().Jobs(key.Namespace).UpdateStatus(r.t.Context(), &job, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	r.settle()
}

func (r *rig) begin(n int) {
	r.update(n, func(s *batchv1.JobStatus) { one := int32(1); s.Active, s.Ready = 1, &one })
}

func (r *rig) finish(n int) {
	r.update(n, func(s *batchv1.JobStatus) {
		now := metav1.Now()
		s.Active, s.Ready, s.Succeeded, s.CompletionTime = 0, nil, 1, &now
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now}}
	})
}

func (r *rig) fail(n int) {
	r.update(n, func(s *batchv1.JobStatus) {
		s.Active, s.Ready, s.Failed = 0, nil, 1
		s.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	})
}

// events returns what was said since the last call.
func (r *rig) events() []string {
	var out []string
	for {
		select {
		case e := <-r.recorder.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func (r *rig) wantEvent(part string) {
	r.t.Helper()
	all := r.events()
	if !slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, part) }) {
		r.t.Errorf("events %q, want one with %q", all, part)
	}
}

// scaled returns a ScaledJob; change, if any, makes it another.
func scaled(change func(*kedav1alpha1.ScaledJob)) *kedav1alpha1.ScaledJob {
	none := int32(0)
	s := &kedav1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: "uid", Generation: 1},
		Spec: kedav1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "main", Image: "example.com/worker"}},
			}}},
			Triggers:                   []kedav1alpha1.ScaleTriggers{{Type: "redis"}},
			SuccessfulJobsHistoryLimit: &none,
			FailedJobsHistoryLimit:     &none,
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

func strategy(kind string) func(*kedav1alpha1.ScaledJob) {
	return func(s *kedav1alpha1.ScaledJob) { s.Spec.ScalingStrategy.Strategy = kind }
}

var errDown = errors.New("server is down")
