package scaler

import (
	"context"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/trigger"
)

const (
	// restless is the shortest pause between two rounds.
	restless = 100 * time.Millisecond
	// patience is how long a round waits for answers before it goes on with those it has.
	patience = 500 * time.Millisecond
	// quickest bounds how often a source that cannot tell of work is asked by ebb.dev/fast-poll, and
	// share is the part of time that may be spent waiting for it.
	quickest = 200 * time.Millisecond
	share    = 100
	// spared is how much of the time that was not spent at most counts later.
	spared = 5 * time.Second
	// grid is what the times are rounded to at which intervals from coarse on end, so that the sources of
	// many objects are asked together.
	grid   = 250 * time.Millisecond
	coarse = 4 * time.Second
)

// A subject is what a lane is for: an object at one time.
type subject struct {
	object   client.Object
	kind     string
	triggers []kedav1alpha1.ScaleTriggers
	interval time.Duration
	// composed tells that a formula is made of the triggers.
	composed bool
	// fast is the annotation ebb.dev/fast-poll.
	fast bool
	// whole has all triggers be asked, and waited for, in every round.
	whole bool
}

// An owner is whom a lane belongs to.
type owner interface {
	// subject returns the present one; false if there is none.
	subject() (subject, bool)
	// judge takes what all triggers say now, and returns how soon they are all to be asked again; 0: at
	// the next interval.
	judge(ctx context.Context, seen observation) time.Duration
	// built tells that a trigger has a new source, or why it has none.
	built(w *watched)
	// changed tells that the metrics are others, or other triggers work, than before.
	changed()
}

// A lane asks the triggers of one object, a round at a time.
//
//	resting ──push, interval, question──► round: ask those that are due ──► owner.judge
//	   ▲                                    │ who is late is not waited for: its answer
//	   └────────────── pause ◄──────────────┘ brings a round of its own
//
// It has no goroutine while it rests.
type lane struct {
	engine *Engine
	key    types.NamespacedName
	owner  owner

	turn sync.Mutex // held by rounds, and by those who make or close triggers

	mu       sync.Mutex // guards the fields below and watched's; short
	triggers []*watched // set with turn held, too
	mode     trigger.Mode
	next     time.Time // when all are to be asked
	interval time.Duration
	question bool          // all are asked for, before it is time
	round    int           // counts them
	late     time.Duration // of the last round that came by the clock
	failures uint64        // of all triggers there were: to be made, and to answer
	running  bool
	again    bool // one more round is asked for
	gone     bool
	ended    chan struct{} // closed when it is gone
	timer    *time.Timer
	waiting  []chan struct{} // closed at the end of the next round to begin
}

// kick asks for a round.
func (l *lane) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.gone:
	case l.running:
		l.again = true
	default:
		l.running = l.engine.begin(l.run)
	}
}

// wake has one trigger be asked soon.
func (l *lane) wake(w *watched) {
	l.mu.Lock()
	if w.spec.UseCachedMetrics && l.mode == trigger.Active {
		l.mu.Unlock() // its value is to stand for an interval
		return
	}
	w.due = true
	l.mu.Unlock()
	l.kick()
}

// poll has all triggers be asked soon.
func (l *lane) poll() {
	l.mu.Lock()
	l.next = time.Time{}
	l.mu.Unlock()
	l.kick()
}

// fresh has all triggers be asked now and returns when they answered, or when patience is over. What is
// asked at the interval is asked all the same.
func (l *lane) fresh(ctx context.Context) {
	done := make(chan struct{})
	l.mu.Lock()
	l.waiting = append(l.waiting, done)
	l.question = true
	l.mu.Unlock()
	l.kick()
	limit, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	select {
	case <-done:
	case <-limit.Done():
	}
}

// run goes from round to round until none is asked for.
func (l *lane) run(ctx context.Context) {
	for {
		began := time.Now()
		wait := l.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restless - time.Since(began)):
		}
		if l.rest(wait) {
			return
		}
	}
}

// rest ends running for a while, unless a round was asked for meanwhile.
func (l *lane) rest(wait time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.again {
		l.again = false
		return false
	}
	l.running = false
	switch {
	case l.gone:
	case l.timer == nil:
		l.timer = time.AfterFunc(wait, l.kick)
	default:
		l.timer.Reset(wait)
	}
	return true
}

// once is one round. It returns how long to rest.
func (l *lane) once(ctx context.Context) time.Duration {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	waiting := l.waiting
	l.waiting = nil
	gone := l.gone
	l.mu.Unlock()
	defer func() {
		for _, done := range waiting {
			close(done)
		}
	}()
	s, ok := l.owner.subject()
	if !ok || gone {
		return time.Hour
	}
	now := time.Now()
	if l.make(ctx, s, func(w *watched) bool { return w.stale || !w.retry.IsZero() && !now.Before(w.retry) }) {
		l.owner.changed()
	}
	l.ask(ctx, s)
	if ctx.Err() != nil {
		return s.interval
	}
	if soon := l.owner.judge(ctx, l.observe()); soon > 0 {
		l.mu.Lock()
		if at := time.Now().Add(soon); at.Before(l.next) {
			l.next = at
		}
		l.mu.Unlock()
	}
	return l.pause(s)
}

// pause is how long nothing is due.
func (l *lane) pause(s subject) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.next
	for _, w := range l.triggers {
		for _, at := range []time.Time{w.again, w.retry} {
			if !at.IsZero() && at.Before(until) {
				until = at
			}
		}
	}
	return max(min(time.Until(until), s.interval), 0)
}

// ask asks the triggers that are due, and waits for their answers as long as patience lasts.
func (l *lane) ask(ctx context.Context, s subject) {
	due := l.claim(s)
	var left sync.WaitGroup
	l.mu.Lock()
	n, mode := l.round, l.mode
	l.mu.Unlock()
	for _, w := range due {
		w.arm(mode, func() { l.wake(w) }) // before it is asked: what comes in between is told
		again := time.Duration(0)
		if s.fast && !w.pushes() {
			again = s.interval
		}
		source := w.source
		left.Add(1)
		if !l.engine.begin(func(ctx context.Context) { defer left.Done(); l.read(ctx, w, source, n, again) }) {
			left.Done()
		}
	}
	answered := make(chan struct{})
	go func() { left.Wait(); close(answered) }()
	limit := patience
	if s.whole {
		limit = l.limit()
	}
	select {
	case <-ctx.Done():
	case <-l.ended:
	case <-answered:
	case <-time.After(limit):
	}
	l.mu.Lock()
	l.round++
	l.mu.Unlock()
}

// limit is how long one question to a source may take: several requests.
func (l *lane) limit() time.Duration { return 3 * l.engine.config.Timeout }

// claim takes the triggers that are to be asked in this round.
func (l *lane) claim(s subject) (due []*watched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.interval = s.interval
	all := s.whole
	if !now.Before(l.next) {
		l.late = behind(l.next, now)
		all, l.next = true, l.engine.next(now, s.interval)
	}
	for _, w := range l.triggers {
		wanted := all || w.due || !w.again.IsZero() && !now.Before(w.again)
		if w.source == nil || !wanted && !l.question {
			continue
		}
		if w.asking {
			w.early = w.early && !all
			continue
		}
		w.due, w.asking, w.early = false, true, !wanted
		due = append(due, w)
	}
	l.question = false
	return due
}

// behind is how late it is for what was to be at a time; what was asked for as soon as possible is not.
func behind(at, now time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return now.Sub(at)
}

// read asks one source; again above 0 has it be asked out of turn after a pause, of that length at most.
// An answer that comes when its round is over brings another one.
func (l *lane) read(ctx context.Context, w *watched, source trigger.Source, round int, again time.Duration) {
	limit, cancel := context.WithTimeout(ctx, l.limit())
	defer cancel()
	l.mu.Lock()
	w.cancel = cancel
	closing := w.closing
	l.mu.Unlock()
	if closing {
		l.shut(w, source)
		return
	}
	a := answer{began: time.Now()}
	a.readings, a.err = source.Read(limit)
	a.took = time.Since(a.began)
	if l.answered(w, a, again) == round {
		return
	}
	l.mu.Lock()
	closing = w.closing
	l.mu.Unlock()
	if closing {
		l.shut(w, source)
		return
	}
	l.kick()
}

// answered notes an answer. It returns the round that it belongs to, -1 if another one is needed.
func (l *lane) answered(w *watched, a answer, again time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := a.err != nil
	a.aside = w.early
	if failed && !w.closing {
		w.failures++
		l.failures++
	}
	a.err = w.missing.Explain(a.err)
	w.asking, w.cancel, w.last, w.again = false, nil, a, time.Time{}
	if again > 0 {
		w.again = time.Now().Add(w.rest(a.took, again))
	}
	if failed && w.spec.AuthenticationRef != nil {
		w.retry = time.Now().Add(l.interval) // where it lies may tell of no change
	}
	if w.due || w.closing {
		return -1
	}
	return l.round
}

// rest is how long, at most, a source is not asked again that answered after a time. One slow answer among
// quick ones, whose pauses were longer than they had to be, makes no long pause.
func (w *watched) rest(took, most time.Duration) time.Duration {
	owed := (share-1)*took - w.spare
	pause := min(max(owed, quickest), most)
	w.spare = min(max(pause-owed, 0), spared)
	return pause
}

// An observation is what all triggers of an object say at one time.
type observation struct {
	began    time.Time     // when the oldest answer was asked for
	took     time.Duration // how long the slowest one did
	aside    bool          // some answer is
	triggers []said
}

// old tells that the answers are not of the present: older than the slowest source makes them.
func (seen *observation) old() bool { return time.Since(seen.began) > fresh+seen.took }

// said is one trigger, its metrics at that time, and its last answer.
type said struct {
	*watched
	answer

	specs []autoscalingv2.MetricSpec
}

// An answer is what a source said.
type answer struct {
	began    time.Time // when it was asked for; zero if it was not
	took     time.Duration
	readings []trigger.Reading
	err      error
	aside    bool // it was asked for before it was time, and by nothing that tells of work
}

// observe gathers the last answers.
func (l *lane) observe() observation {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := observation{began: time.Now(), triggers: make([]said, len(l.triggers))}
	for i, w := range l.triggers {
		a := &seen.triggers[i]
		a.watched, a.answer, a.specs = w, w.last, w.specs
		if w.err != nil {
			a.answer.err = w.err
			continue
		}
		if a.began.Before(seen.began) {
			seen.began = a.began
		}
		seen.took, seen.aside = max(seen.took, a.took), seen.aside || a.aside
	}
	return seen
}

// pending tells that a trigger has not answered yet.
func (s *said) pending() bool { return s.answer.err == nil && s.began.IsZero() }

// lean has sources tell of work in the way that suits whether there is any.
func (l *lane) lean(mode trigger.Mode) {
	l.mu.Lock()
	before := l.mode
	l.mode = mode
	triggers := l.triggers
	l.mu.Unlock()
	if before == mode {
		return
	}
	for _, w := range triggers {
		w.arm(mode, func() { l.wake(w) })
	}
}

// end closes what the lane holds.
func (l *lane) end() {
	l.mu.Lock()
	if !l.gone {
		close(l.ended)
	}
	l.gone = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	triggers := l.triggers
	l.triggers = nil
	l.mu.Unlock()
	for _, w := range triggers {
		l.close(w)
	}
}
