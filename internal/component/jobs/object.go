package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

// How long a running Job may take until it has taken its work: a polling interval, within bounds. An
// interval is what it has in KEDA; less would be too little for a slow start, more would let work wait
// that came unnoticed while other work went.
const (
	leastSettle    = 15 * time.Second
	mostSettle     = time.Minute
	defaultPolling = 30 * time.Second
)

// object is what is known of one ScaledJob.
type object struct {
	key types.NamespacedName

	acting turn // of whoever makes Jobs, deletes them, or changes what is followed

	mu       sync.Mutex                 // guards the fields below; never held while talking to anybody
	scaled   *kedav1alpha1.ScaledJob    // as followed; nil while it is not. Never changed
	watched  *kedav1alpha1.ScaledJob    // the same, also while one version gives way to the next
	failed   []activation.FailedTrigger // its triggers without a source
	limits   rules.Limits
	strategy rules.Strategy
	ledger   *rules.Ledger
	silent   []int                  // the triggers that said nothing the last time
	unseen   map[string]origin      // Jobs that were made and have not been seen
	deleted  map[types.UID]struct{} // Jobs that were deleted and are still seen
	awaited  bool                   // it is about to be followed: observations may come
	latest   *rules.Observation     // not judged yet
	judged   time.Time              // when the last one that was judged began
	again    time.Time              // when the sources are to be asked once more, for Jobs have settled
	refused  time.Time              // no Jobs are made before, for the API did not take the last ones
	short    bool                   // a Job that ends makes room for work that waits
	told     bool                   // status holds
	status   kedav1alpha1.ScaledJobStatus
	active   bool
	troubles map[int]trouble // by trigger
	account  Account
}

// origin is when a Job was made, and of which version of its ScaledJob.
type origin struct {
	generation int64
	made       time.Time
}

// A turn is had by one at a time. It is a lock that may be waited for with a context, since whoever has
// it talks to the API.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for jobs to be made: %w", context.Cause(ctx))
	}
}

// try takes the turn if nobody has it.
func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) give() { <-t }

func newObject(key types.NamespacedName) *object {
	return &object{
		key: key, acting: make(turn, 1), ledger: rules.NewLedger(defaultPolling),
		unseen: map[string]origin{}, deleted: map[types.UID]struct{}{}, troubles: map[int]trouble{},
	}
}

// same tells whether an object is followed as it is.
func (o *object) same(scaled *kedav1alpha1.ScaledJob) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.scaled
	return was != nil && was.UID == scaled.UID && was.Generation == scaled.Generation &&
		maps.Equal(was.Labels, scaled.Labels) && maps.Equal(was.Annotations, scaled.Annotations)
}

// follows tells whether that version is followed.
func (o *object) follows(generation int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.scaled != nil && o.scaled.Generation == generation
}

// await has observations be kept that come before follow. What was asked of other triggers counts no
// longer.
func (o *object) await(scaled *kedav1alpha1.ScaledJob, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.awaited = true
	if o.scaled == nil || !equality.Semantic.DeepEqual(o.scaled.Spec.Triggers, scaled.Spec.Triggers) {
		o.latest, o.judged = nil, now
	}
}

// follow puts a version in force. It reports whether none was.
func (o *object) follow(scaled *kedav1alpha1.ScaledJob, failed []activation.FailedTrigger) (begun bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	begun = o.watched == nil
	if o.scaled == nil || !equality.Semantic.DeepEqual(o.scaled.Spec.Triggers, scaled.Spec.Triggers) {
		o.ledger.Reset()
		o.troubles = map[int]trouble{}
	}
	if o.account.UID != scaled.UID {
		o.active = scaled.Status.Conditions.GetActiveCondition().Status == metav1.ConditionTrue
		o.account, o.told = Account{UID: scaled.UID}, false
		o.status = kedav1alpha1.ScaledJobStatus{LastActiveTime: scaled.Status.LastActiveTime.DeepCopy()}
	}
	strategy := scaled.Spec.ScalingStrategy
	o.scaled, o.watched, o.failed, o.awaited, o.refused = scaled, scaled, failed, false, time.Time{}
	o.limits = rules.NewLimits(scaled.Spec.MinReplicaCount, scaled.Spec.MaxReplicaCount)
	o.strategy = rules.NewStrategy(strategy.Strategy, strategy.CustomScalingQueueLengthDeduction, strategy.CustomScalingRunningJobPercentage)
	o.ledger.Settle = min(max(polling(scaled), leastSettle), mostSettle)
	return begun
}

func polling(scaled *kedav1alpha1.ScaledJob) time.Duration {
	if p := scaled.Spec.PollingInterval; p != nil && *p > 0 {
		return time.Duration(*p) * time.Second
	}
	return defaultPolling
}

// pause has no more Jobs be made until something is followed again.
func (o *object) pause() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latest, o.awaited, o.scaled = nil, false, nil
	o.short, o.again = false, time.Time{}
}

// unfollow is pause for good: what was said of the object holds no longer. It returns what was followed.
func (o *object) unfollow() *kedav1alpha1.ScaledJob {
	o.pause()
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.watched
	o.watched, o.told = nil, false
	return was
}

// outdated returns the Jobs of other versions that were made and have not been seen.
func (o *object) outdated(generation int64) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	for name, of := range o.unseen {
		if of.generation != generation {
			names = append(names, name)
		}
	}
	return names
}

// take keeps an observation to be judged, unless a later one was or is.
func (o *object) take(seen rules.Observation) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if (o.scaled == nil && !o.awaited) || seen.Began.Before(o.judged) || (o.latest != nil && seen.Began.Before(o.latest.Began)) {
		return false
	}
	o.latest = &seen
	return true
}

// see notes a Job as it is. It reports whether there is something to do by it.
func (o *object) see(job *batchv1.Job, sight rules.Sight, now time.Time) (work, ask bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.unseen, job.Name)
	if !o.ledger.See(job.Name, sight, now) {
		return sight.Ended, false
	}
	return true, o.room()
}

// lose notes that a Job is gone.
func (o *object) lose(job *batchv1.Job, now time.Time) (ask bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.unseen, job.Name)
	delete(o.deleted, job.UID)
	return o.ledger.Lose(job.Name, now) && o.room()
}

// room tells whether a Job that ended makes room for another; mu is held.
func (o *object) room() bool {
	return o.scaled != nil && (o.short || int64(o.ledger.Unfinished()) < o.limits.Min)
}

// idle tells whether nothing would be missed if the object was forgotten.
func (o *object) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.scaled == nil && o.ledger.Unfinished() == 0
}

// publish puts a status in force. It reports whether it is another.
func (o *object) publish(status kedav1alpha1.ScaledJobStatus) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told && equality.Semantic.DeepEqual(o.status, status) {
		return false
	}
	o.status, o.told = status, true
	return true
}

// conditionsOf lists the types of conditions of pods that begin to run by them.
func conditionsOf(scaled *kedav1alpha1.ScaledJob) []string {
	if scaled == nil {
		return nil
	}
	return slices.Clone(scaled.Spec.ScalingStrategy.PendingPodConditions)
}
