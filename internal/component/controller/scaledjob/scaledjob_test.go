package scaledjob

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ebb.dev/ebb/internal/platform/kube"
)

var key = types.NamespacedName{Namespace: "shop", Name: "orders"}

// engine notes what it is asked.
type engine struct {
	calls    []string
	outdated []string
	err      error // of Follow
	status   *kedav1alpha1.ScaledJobStatus
}

func (e *engine) Follow(_ context.Context, job *kedav1alpha1.ScaledJob) error {
	e.calls = append(e.calls, "follow")
	return e.err
}

func (e *engine) Supersede(context.Context, types.NamespacedName, int64) ([]string, error) {
	e.calls = append(e.calls, "supersede")
	return e.outdated, nil
}

func (e *engine) Unfollow(types.NamespacedName) { e.calls = append(e.calls, "unfollow") }

func (e *engine) State(types.NamespacedName) (kedav1alpha1.ScaledJobStatus, bool) {
	if e.status == nil {
		return kedav1alpha1.ScaledJobStatus{}, false
	}
	return *e.status.DeepCopy(), true
}

func (e *engine) Subscribe(func(types.NamespacedName)) {}

// emitter keeps what it is told.
type emitter struct{ told []string }

func (e *emitter) Emit(_ client.Object, kind string, cloud kedaeventingv1alpha1.CloudEventType, reason, message string) {
	e.told = append(e.told, kind+" "+reason+": "+message+" ("+string(cloud)+")")
}

// rig is a Reconciler on a fake API.
type rig struct {
	*Reconciler
	t       *testing.T
	engine  *engine
	emitter *emitter
	writes  int
}

func newRig(t *testing.T, deny func(client.Object) error, objects ...client.Object) *rig {
	t.Helper()
	x := &rig{t: t, engine: &engine{}, emitter: &emitter{}}
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithStatusSubresource(&kedav1alpha1.ScaledJob{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
				if deny != nil {
					if err := deny(o); err != nil {
						return err
					}
				}
				return c.Delete(ctx, o, opts...)
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				x.writes++
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
		}).Build()
	x.Reconciler = &Reconciler{client: c, engine: x.engine, emitter: x.emitter, now: time.Now, log: slog.New(slog.DiscardHandler)}
	return x
}

func (x *rig) reconcile() ctrl.Result {
	x.t.Helper()
	res, err := x.Reconcile(x.t.Context(), ctrl.Request{NamespacedName: key})
	if err != nil {
		x.t.Fatal(err)
	}
	return res
}

func (x *rig) get() *kedav1alpha1.ScaledJob {
	x.t.Helper()
	job := &kedav1alpha1.ScaledJob{}
	if err := x.client.Get(x.t.Context(), key, job); err != nil {
		x.t.Fatal(err)
	}
	return job
}

// conditions writes a ScaledJob's conditions down in one line each.
func conditions(job *kedav1alpha1.ScaledJob) map[string]string {
	out := map[string]string{}
	for _, c := range job.Status.Conditions {
		out[string(c.Type)] = strings.TrimSpace(string(c.Status) + " " + c.Reason + " " + c.Message)
	}
	return out
}

func (x *rig) wantCalls(want ...string) {
	x.t.Helper()
	if diff := cmp.Diff(want, x.engine.calls); diff != "" {
		x.t.Error(diff)
	}
	x.engine.calls = nil
}

func (x *rig) wantTold(want ...string) {
	x.t.Helper()
	if diff := cmp.Diff(want, x.emitter.told); diff != "" {
		x.t.Error(diff)
	}
	x.emitter.told = nil
}

func (x *rig) wantConditions(want map[string]string) {
	x.t.Helper()
	if diff := cmp.Diff(want, conditions(x.get())); diff != "" {
		x.t.Error(diff)
	}
}

func scaled(change func(*kedav1alpha1.ScaledJob)) *kedav1alpha1.ScaledJob {
	job := &kedav1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Generation: 2},
		Spec: kedav1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{},
			Triggers: []kedav1alpha1.ScaleTriggers{
				{Type: "redis", AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: "login"}}, {Type: "cron"}, {Type: "redis"},
			},
		},
	}
	if change != nil {
		change(job)
	}
	return job
}

const toldReady = "Normal ScaledJobReady: ScaledJob is ready for scaling (keda.scaledjob.ready.v1)"

func TestReconcileFollowsAndShowsWhatTheEngineDecided(t *testing.T) {
	x := newRig(t, nil, scaled(nil))
	x.reconcile()
	x.wantCalls("supersede", "follow")
	x.wantTold(toldReady)
	x.wantConditions(map[string]string{
		"Ready":  "True ScaledJobReady ScaledJob is defined correctly and is ready to scaling",
		"Active": "Unknown", "Fallback": "Unknown", "Paused": "False",
	})
	job := x.get()
	if !slices.Contains(job.Finalizers, "finalizer.keda.sh") || *job.Status.TriggersTypes != "redis,cron" || *job.Status.AuthenticationsTypes != "login" {
		t.Errorf("finalizers %v, status %+v", job.Finalizers, job.Status)
	}
	now := metav1.NewTime(time.Unix(1000, 0))
	x.engine.status = &kedav1alpha1.ScaledJobStatus{
		Conditions: kedav1alpha1.Conditions{
			{Type: "Ready", Status: "Unknown", Reason: "PartialTriggerError", Message: "some"}, {Type: "Active", Status: "True", Reason: "ScalerActive"},
		},
		LastActiveTime: &now, ExternalMetricNames: []string{"s0-q"},
		TriggersActivity: map[string]kedav1alpha1.TriggerActivityStatus{"s0-q": {IsActive: true}},
	}
	x.reconcile()
	x.wantTold()
	x.wantConditions(map[string]string{
		"Ready": "Unknown PartialTriggerError some", "Active": "True ScalerActive", "Fallback": "Unknown", "Paused": "False",
	})
	if job := x.get(); !job.Status.TriggersActivity["s0-q"].IsActive || !job.Status.LastActiveTime.Equal(&now) || len(job.Status.ExternalMetricNames) != 1 {
		t.Errorf("status %+v", job.Status)
	}
	x.writes = 0
	x.reconcile()
	if x.writes > 0 {
		t.Error("a settled one was written again")
	}
	x.engine.status = nil // as after a restart
	x.reconcile()
	if x.writes > 0 {
		t.Error("what was said is taken back before the engine has decided")
	}
}

func TestReconcilePauses(t *testing.T) {
	x := newRig(t, nil, scaled(nil))
	x.reconcile()
	x.wantCalls("supersede", "follow")
	x.wantTold(toldReady)
	for _, value := range []string{"true", "yes, please"} {
		job := x.get()
		job.Annotations = map[string]string{"autoscaling.keda.sh/paused": value}
		if err := x.client.Update(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		x.reconcile()
		x.reconcile()
		x.wantCalls("unfollow", "unfollow")
		x.wantTold("Normal ScaledJobPaused: ScaledJob is paused (keda.scaledjob.paused.v1)")
		x.wantConditions(map[string]string{
			"Ready":  "True ScaledJobReady ScaledJob is paused, skipping reconcile loop",
			"Active": "Unknown", "Fallback": "Unknown", "Paused": "True ScaledJobPaused ScaledJob is paused",
		})
		job = x.get()
		job.Annotations["autoscaling.keda.sh/paused"] = "false"
		if err := x.client.Update(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		x.reconcile()
		x.wantCalls("supersede", "follow")
		x.wantTold("Normal ScaledJobUnpaused: ScaledJob is unpaused (keda.scaledjob.unpaused.v1)")
		x.wantConditions(map[string]string{
			"Ready":  "True ScaledJobReady ScaledJob is defined correctly and is ready to scaling",
			"Active": "Unknown", "Fallback": "Unknown", "Paused": "False ScaledJobUnpaused ScaledJob is unpaused",
		})
	}
}

func TestReconcileSaysWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*kedav1alpha1.ScaledJob)
		err    error
		want   string
		calls  []string
	}{
		"no template": {
			change: func(j *kedav1alpha1.ScaledJob) { j.Spec.JobTargetRef = nil },
			want:   "ScaledJob.spec.jobTargetRef not found", calls: []string{"unfollow"},
		},
		"no triggers": {
			change: func(j *kedav1alpha1.ScaledJob) { j.Spec.Triggers = nil },
			want:   "ScaledJob doesn't have correct triggers specification: no triggers defined in the ScaledObject/ScaledJob",
			calls:  []string{"unfollow"},
		},
		"a type of metric": {
			change: func(j *kedav1alpha1.ScaledJob) { j.Spec.Triggers[1].MetricType = "Value" },
			want:   "Cannot set metricType in ScaledJob triggers: metricType is set in one of the ScaledJob scaler", calls: []string{"unfollow"},
		},
		"triggers that cannot be asked": {
			err: errors.New("no address given"), calls: []string{"supersede", "follow"},
			want: "Failed to ensure ScaledJob is correctly created: no address given",
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newRig(t, nil, scaled(tc.change))
			x.engine.err = tc.err
			if again := x.reconcile().RequeueAfter; again < soonest || again > latest {
				t.Errorf("again after %s", again)
			}
			x.wantCalls(tc.calls...)
			x.reconcile() // says it once only
			x.wantTold("Warning ScaledJobCheckFailed: " + tc.want + " (keda.scaledjob.failed.v1)")
			x.wantConditions(map[string]string{
				"Ready": "False ScaledJobCheckFailed " + tc.want, "Active": "Unknown UnknownState ScaledJob check failed",
				"Fallback": "Unknown", "Paused": "False",
			})
			job := x.get()
			fixed := scaled(nil)
			job.Spec, x.engine.err = fixed.Spec, nil
			if err := x.client.Update(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			x.reconcile()
			x.wantTold(toldReady)
		})
	}
}

func TestReconcileRollsOut(t *testing.T) {
	started := "Normal ScaledJobRolloutCleanupStarted: Deleting 2 jobs owned by the previous version of the scaledJob (keda.scaledjob.rolloutcleanup.started.v1)"
	for name, tc := range map[string]struct {
		change func(*kedav1alpha1.ScaledJob)
		deny   func(client.Object) error
		calls  []string
		told   []string
		left   int
	}{
		"at once": {
			calls: []string{"supersede", "follow"},
			told: []string{
				started,
				"Normal ScaledJobRolloutCleanupCompleted: Deleted 2 jobs owned by the previous version of the scaledJob (keda.scaledjob.rolloutcleanup.completed.v1)",
				toldReady,
			},
		},
		"gradually": {
			change: func(j *kedav1alpha1.ScaledJob) { j.Spec.Rollout.Strategy = "gradual" },
			calls:  []string{"follow"}, told: []string{toldReady}, left: 1,
		},
		"gradually, by the field that is deprecated": {
			change: func(j *kedav1alpha1.ScaledJob) {
				j.Spec.RolloutStrategy, j.Spec.Rollout.Strategy = "gradual", "immediate"
			},
			calls: []string{"follow"}, told: []string{toldReady}, left: 1,
		},
		"not, as a job cannot be deleted": {
			deny: func(client.Object) error {
				return apierrors.NewForbidden(batchv1.Resource("jobs"), "a", errors.New("no"))
			},
			calls: []string{"supersede"}, left: 1,
			told: []string{
				started,
				`Warning ScaledJobRolloutCleanupFailed: Failed to delete job a: jobs.batch "a" is forbidden: no (keda.scaledjob.rolloutcleanup.failed.v1)`,
				`Warning ScaledJobCheckFailed: Not able to delete job: a: jobs.batch "a" is forbidden: no (keda.scaledjob.failed.v1)`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newRig(t, tc.deny, scaled(tc.change), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "a"}})
			x.engine.outdated = []string{"a", "gone"}
			x.reconcile()
			x.wantCalls(tc.calls...)
			x.wantTold(tc.told...)
			var jobs batchv1.JobList
			if err := x.client.List(t.Context(), &jobs); err != nil || len(jobs.Items) != tc.left {
				t.Errorf("%d jobs are left, %v", len(jobs.Items), err)
			}
		})
	}
}

func TestRolloutDeletesAsAsked(t *testing.T) {
	for policy, want := range map[string]metav1.DeletionPropagation{
		"": metav1.DeletePropagationBackground, "background": metav1.DeletePropagationBackground, "foreground": metav1.DeletePropagationForeground,
	} {
		var got metav1.DeletionPropagation
		base := newRig(t, nil, scaled(nil))
		base.client = interceptor.NewClient(base.client.(client.WithWatch), interceptor.Funcs{
			Delete: func(_ context.Context, _ client.WithWatch, _ client.Object, opts ...client.DeleteOption) error {
				o := &client.DeleteOptions{}
				o.ApplyOptions(opts)
				got = *o.PropagationPolicy
				return nil
			},
		})
		job := scaled(func(j *kedav1alpha1.ScaledJob) { j.Spec.Rollout.PropagationPolicy = policy })
		if p := base.deleteOutdated(t.Context(), job, []string{"a"}); p != nil || got != want {
			t.Errorf("%q: deleted with %s, %v", policy, got, p)
		}
	}
}

func TestReconcileLetsGo(t *testing.T) {
	now := metav1.Now()
	x := newRig(t, nil, scaled(func(j *kedav1alpha1.ScaledJob) {
		j.DeletionTimestamp, j.Finalizers = &now, []string{"finalizer.keda.sh", "another's"}
	}))
	x.reconcile()
	x.wantCalls("unfollow")
	x.wantTold("Warning ScaledJobDeleted: ScaledJob was deleted (keda.scaledjob.removed.v1)")
	if got := x.get().Finalizers; !slices.Equal(got, []string{"another's"}) {
		t.Errorf("finalizers %v", got)
	}
	x.reconcile()
	x.wantCalls("unfollow")
	x.wantTold()
}

func TestReconcileOfNothing(t *testing.T) {
	x := newRig(t, nil)
	x.reconcile()
	x.wantCalls("unfollow")
}
