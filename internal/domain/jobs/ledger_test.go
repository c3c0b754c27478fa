package jobs_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ebb.dev/ebb/internal/domain/jobs"
)

func second(s int) time.Time { return time.Unix(int64(1000+s), 0) }

// TestLedgerCounts tells what a ledger says of an observation after a story.
func TestLedgerCounts(t *testing.T) {
	running, ended := jobs.Sight{Running: true}, jobs.Sight{Running: true, Ended: true}
	for name, tc := range map[string]struct {
		story     func(l *jobs.Ledger)
		then, now int
		level     float64
		want      jobs.Counts
	}{
		"a job that is being made is pending": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)) },
			then:  2, now: 2, want: jobs.Counts{Running: 1, RunningThen: 1, Pending: 1},
		},
		"one that was not made is nothing": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.Forget("a") },
			then:  2, now: 2,
		},
		"a job that runs holds its work until it has settled": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.See("a", running, second(3)) },
			then:  12, now: 12, want: jobs.Counts{Running: 1, RunningThen: 1, Held: 1},
		},
		"and no longer": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.See("a", running, second(3)) },
			then:  13, now: 13, want: jobs.Counts{Running: 1, RunningThen: 1},
		},
		"less work shows that it was taken": {
			story: func(l *jobs.Ledger) {
				l.Expect("a", second(1))
				l.See("a", running, second(3))
				l.Observe(2, true, second(4), second(4))
			},
			then: 5, now: 5, level: 1, want: jobs.Counts{Running: 1, RunningThen: 1},
		},
		"half a unit less does not": {
			story: func(l *jobs.Ledger) {
				l.Expect("a", second(1))
				l.See("a", running, second(3))
				l.Observe(1.5, true, second(4), second(4))
			},
			then: 5, now: 5, level: 1, want: jobs.Counts{Running: 1, RunningThen: 1, Held: 1},
		},
		"an observation that lacks a trigger shows nothing": {
			story: func(l *jobs.Ledger) {
				l.Expect("a", second(1))
				l.See("a", running, second(3))
				l.Observe(1, true, second(4), second(4))
				l.Observe(0, false, second(5), second(5))
			},
			then: 6, now: 6, level: 1, want: jobs.Counts{Running: 1, RunningThen: 1, Held: 1},
		},
		"nor does a level that was measured otherwise": {
			story: func(l *jobs.Ledger) {
				l.Expect("a", second(1))
				l.See("a", running, second(3))
				l.Observe(100, true, second(4), second(4))
				l.Reset()
			},
			then: 5, now: 5, level: 1, want: jobs.Counts{Running: 1, RunningThen: 1, Held: 1},
		},
		"a job that ended since counts for an observation from before": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.See("a", ended, second(9)) },
			then:  8, now: 10, want: jobs.Counts{RunningThen: 1, Held: 1},
		},
		"and not for one from after": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.See("a", ended, second(9)) },
			then:  9, now: 10,
		},
		"a job that is gone has ended": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)); l.See("a", running, second(2)); l.Lose("a", second(9)) },
			then:  9, now: 10,
		},
		"a job that never shows is given up": {
			story: func(l *jobs.Ledger) { l.Expect("a", second(1)) },
			then:  70, now: 70,
		},
		"one that fails and tries again is pending again": {
			story: func(l *jobs.Ledger) {
				l.Expect("a", second(1))
				l.See("a", running, second(2))
				l.See("a", jobs.Sight{}, second(20))
			},
			then: 30, now: 30, want: jobs.Counts{Running: 1, RunningThen: 1, Pending: 1},
		},
		"a job from before this ledger has settled by its own time": {
			story: func(l *jobs.Ledger) {
				l.See("old", jobs.Sight{Running: true, Since: second(0)}, second(20))
				l.See("new", jobs.Sight{Running: true, Since: second(15)}, second(20))
				l.See("done", jobs.Sight{Ended: true, Since: second(15)}, second(20))
			},
			then: 21, now: 21, want: jobs.Counts{Running: 2, RunningThen: 2, Held: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := jobs.NewLedger(10 * time.Second)
			tc.story(l)
			got := l.Observe(tc.level, true, second(tc.then), second(tc.now))
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(jobs.Counts{}, "Settles")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLedgerTellsWhenTheNextJobHasSettled(t *testing.T) {
	l := jobs.NewLedger(10 * time.Second)
	for i, name := range []string{"a", "b"} {
		l.Expect(name, second(1))
		l.See(name, jobs.Sight{Running: true}, second(3+i))
	}
	if got := l.Observe(0, true, second(5), second(5)).Settles; !got.Equal(second(13)) {
		t.Errorf("got %s, want %s", got, second(13))
	}
	if n := l.Unfinished(); n != 2 {
		t.Errorf("%d unfinished, want 2", n)
	}
}
