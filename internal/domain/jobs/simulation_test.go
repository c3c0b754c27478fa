package jobs_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/jobs"
)

// world is a source of work, Jobs that do it, and what an engine sees of both, late. Time is in
// milliseconds.
type world struct {
	rand      *rand.Rand
	strategy  jobs.Strategy
	limits    jobs.Limits
	ledger    *jobs.Ledger
	untilDone bool // the source counts work until it is done, not until it is taken
	calm      int  // work comes once in so many steps, on average
	trouble   bool // Jobs may end before they took anything, and the engine may start anew
	crashed   int  // Jobs that did

	now     int
	queue   int // units that the source counts
	taken   int // units taken and not done, of those counted
	arrived int
	all     []*job
	reads   []read
	last    int // when the last read that was judged began
}

// job is a Job with its fate; 0 for times that have not come.
type job struct {
	name                          string
	visible, starts, takes, doneT int
	startSeen, doneSeen           int
	took, done, sawDone           bool
	got, crashes                  bool
}

type read struct{ began, delivered, queue int }

func (w *world) at(ms int) time.Time { return time.UnixMilli(int64(ms) + 1_000_000) }

func (w *world) between(low, high int) int { return low + w.rand.IntN(high-low+1) }

// step lets a moment pass.
func (w *world) step(arrivals bool) {
	w.now += 50
	before := w.queue
	if arrivals && w.rand.IntN(w.calm) == 0 {
		n := w.between(1, 3)
		w.queue, w.arrived = w.queue+n, w.arrived+n
	}
	for _, j := range w.all {
		w.live(j)
	}
	if w.queue != before || w.now%5000 == 0 { // pushed, or polled
		w.reads = append(w.reads, read{began: w.now, delivered: w.now + w.between(0, 900), queue: w.queue})
	}
	if w.trouble && w.rand.IntN(2000) == 0 {
		w.restart()
	}
	w.see()
	w.deliver()
}

// restart forgets all that is not in the API, and reads it.
func (w *world) restart() {
	w.ledger, w.reads = jobs.NewLedger(w.ledger.Settle), []read{{began: w.now, delivered: w.now + 100, queue: w.queue}}
	for _, j := range w.all {
		j.visible = min(j.visible, w.now)
		j.sawDone = j.sawDone || j.done && w.now >= j.doneSeen
	}
}

// live moves one Job on.
func (w *world) live(j *job) {
	if !j.took && w.now >= j.takes {
		j.took = true
		if j.crashes {
			j.done, j.doneT, j.doneSeen = true, w.now, max(j.startSeen, w.now+w.between(0, 1500))
			w.crashed++
			return
		}
		if w.queue-w.taken > 0 {
			j.got = true
			if w.untilDone {
				w.taken++
			} else {
				w.queue--
			}
		}
	}
	if j.took && !j.done && w.now >= j.doneT {
		j.done = true
		if j.got && w.untilDone {
			w.taken--
			w.queue--
		}
	}
}

// see tells the ledger what the API shows by now.
func (w *world) see() {
	for _, j := range w.all {
		if j.sawDone || w.now < j.visible {
			continue
		}
		s := jobs.Sight{Since: w.at(j.visible)}
		if w.now >= j.startSeen {
			s.Running = true
		}
		if j.done && w.now >= j.doneSeen {
			s.Ended, j.sawDone = true, true
		}
		if w.ledger.See(j.name, s, w.at(w.now)) { // one has ended: look again
			w.reads = append(w.reads, read{began: w.now, delivered: w.now + w.between(0, 900), queue: w.queue})
		}
	}
}

// deliver judges the reads that have come back.
func (w *world) deliver() {
	slices.SortStableFunc(w.reads, func(a, b read) int { return a.delivered - b.delivered })
	for len(w.reads) > 0 && w.reads[0].delivered <= w.now {
		r := w.reads[0]
		w.reads = w.reads[1:]
		if r.began < w.last {
			continue
		}
		w.last = r.began
		d := jobs.NewDemand([]jobs.Trigger{{
			Targets:  []jobs.Target{{Metric: "q", Average: 1}},
			Readings: []jobs.Reading{{Metric: "q", Value: float64(r.queue), Active: r.queue > 0}},
		}}, jobs.Largest, w.limits)
		c := w.ledger.Observe(d.Level, true, w.at(r.began), w.at(w.now))
		for range jobs.Decide(d, c, w.limits, w.strategy).Create {
			w.make()
		}
	}
}

func (w *world) make() {
	j := &job{name: fmt.Sprintf("job-%d", len(w.all))}
	j.visible = w.now + w.between(0, 1500)
	j.starts = w.now + w.between(50, 3000)
	j.startSeen = max(j.visible, j.starts+w.between(0, 1500))
	j.takes = j.starts + w.between(0, 4000)
	j.doneT = j.takes + w.between(50, 20000)
	j.doneSeen = max(j.startSeen, j.doneT+w.between(0, 1500))
	j.crashes = w.trouble && w.rand.IntN(20) == 0
	w.all = append(w.all, j)
	w.ledger.Expect(j.name, w.at(w.now))
}

func (w *world) unfinished() int {
	n := 0
	for _, j := range w.all {
		if !j.done {
			n++
		}
	}
	return n
}

// TestOneJobForOneUnitOfWork runs the world with random fates. There is never a Job more than there
// was work, nor more at once than the maximum; and all work has its Job in the end.
func TestOneJobForOneUnitOfWork(t *testing.T) {
	for name, tc := range map[string]struct {
		kind      jobs.Kind
		untilDone bool
		trouble   bool
	}{
		"a source that counts work until it is done":                          {kind: jobs.Default, untilDone: true},
		"the same, with crashes and restarts":                                 {kind: jobs.Default, untilDone: true, trouble: true},
		"a source that forgets work that is taken, with crashes and restarts": {kind: jobs.Accurate, trouble: true},
		"the same, eagerly, with crashes and restarts":                        {kind: jobs.Eager, trouble: true},
		"a source that forgets work that is taken":                            {kind: jobs.Accurate},
		"the same, eagerly":                                                   {kind: jobs.Eager},
		"the same, with nothing taken off for what runs":                      {kind: jobs.Custom},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				r := rand.New(rand.NewPCG(seed, 7))
				w := &world{
					rand: r, strategy: jobs.Strategy{Kind: tc.kind}, untilDone: tc.untilDone,
					limits: jobs.Limits{Max: int64(1 + r.IntN(12))}, ledger: jobs.NewLedger(10 * time.Second), calm: 10 + r.IntN(300),
					trouble: tc.trouble,
				}
				for i := 0; i < 4_000 || i < 400_000 && w.queue > 0; i++ {
					w.step(i < 3_000)
					if len(w.all) > w.arrived+w.crashed {
						t.Fatalf("seed %d, %d ms: %d jobs for %d units of work", seed, w.now, len(w.all), w.arrived)
					}
					if n := w.unfinished(); n > int(w.limits.Max) {
						t.Fatalf("seed %d, %d ms: %d unfinished jobs, at most %d may be", seed, w.now, n, w.limits.Max)
					}
				}
				if len(w.all) != w.arrived+w.crashed || w.queue != 0 || w.arrived == 0 {
					t.Fatalf("seed %d: %d jobs for %d units of work, %d left", seed, len(w.all), w.arrived, w.queue)
				}
			}
		})
	}
}
