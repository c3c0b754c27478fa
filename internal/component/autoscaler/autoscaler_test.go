package autoscaler_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/scale"
)

func TestWakeScalesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa())
		synctest.Wait()
		time.Sleep(1234567 * time.Microsecond) // somewhere between two ticks
		began := time.Now()
		b.arrive(hello)
		synctest.Wait()
		if waited := time.Since(began); c.asked(hello) != 1 || waited != 0 {
			t.Fatalf("%d instances asked for after %s", c.asked(hello), waited)
		}
		s, _ := b.State(hello)
		if s.Want != 1 || s.Reason != scale.Demand || s.Woken.IsZero() || s.Decided.IsZero() || s.Written.IsZero() {
			t.Errorf("State() = %+v", s)
		}
		synctest.Wait()
		if s.Ready != 1 && s.Activity != scale.Activating {
			t.Errorf("activity %s", s.Activity)
		}
		if diff := cmp.Diff([]int32{1}, c.written()); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})
}

func TestAFullLifeFromZeroToZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		c.startup = 50 * time.Millisecond
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa())
		var mu sync.Mutex // guards seen
		var seen []scale.Activity
		b.Subscribe(func(key types.NamespacedName) {
			mu.Lock()
			defer mu.Unlock()
			if s, ok := b.State(key); ok && (len(seen) == 0 || seen[len(seen)-1] != s.Activity) {
				seen = append(seen, s.Activity)
			}
		})
		time.Sleep(10 * time.Second)
		for range 20 {
			b.request(hello, 100*time.Millisecond)
		}
		ended := time.Now()
		for c.asked(hello) > 0 && time.Since(ended) < 5*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if quiet := time.Since(ended); quiet < 55*time.Second || quiet > 65*time.Second {
			t.Errorf("went to zero after %s of quiet, want about a stable window", quiet)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []scale.Activity{scale.Activating, scale.Active, scale.Inactive}
		if diff := cmp.Diff(want, seen[len(seen)-3:]); diff != "" {
			t.Errorf("activities (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int32{1, 0}, c.written()); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})
}

func TestIdleRevisionsLetTheLoopStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		b := start(t, c)
		defer b.stop()
		for i := range 100 {
			key := types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("f-%05d", i)}
			replicas := int32(i % 2) // half of them rest at a minimum of one
			c.create(key, replicas)
			b.SetRevision(key, kpa(func(s *scale.Spec) { s.Min = replicas }))
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := b.Live(); n != 0 {
			t.Errorf("%d revisions are measured though all is quiet", n)
		}
		if n := len(c.written()); n != 0 {
			t.Errorf("%d writes though nothing happened", n)
		}
	})
}

func TestOverloadIsSeenBeforeTheTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 1)
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Target, s.Total = 0.7, 1 }))
		time.Sleep(100*time.Second + 300*time.Millisecond)
		if n := c.asked(hello); n != 0 {
			t.Fatalf("%d instances after quiet", n)
		}
		for range 7 {
			b.arrive(hello)
		}
		for range 3 {
			b.Wake(hello) // says nothing new
		}
		synctest.Wait()
		if n := c.asked(hello); n != 10 {
			t.Errorf("%d instances for 7 requests at 0.7, want 10", n)
		}
	})
}

func TestAnEdgeRecordsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 2)
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Min = 2 }))
		time.Sleep(2 * time.Minute)
		b.arrive(hello)
		for range 200 {
			b.Wake(hello)
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Second)
		s, _ := b.State(hello)
		if s.Panic > 1 || s.Stable > 1 {
			t.Errorf("one request in flight counts as %v (%v)", s.Stable, s.Panic)
		}
	})
}

func TestARestartKeepsWhatThereIs(t *testing.T) {
	cases := map[string]struct {
		replicas, atOnce, later int32
	}{
		"zero stays zero":         {0, 0, 0},
		"one goes after a window": {1, 1, 0},
		"many go after the panic": {8, 8, 0},
	}
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				c.create(hello, x.replicas)
				b := start(t, c)
				defer b.stop()
				b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Before = scale.Active }))
				time.Sleep(50 * time.Second)
				if n := c.asked(hello); n != x.atOnce {
					t.Errorf("%d instances at first, want %d", n, x.atOnce)
				}
				time.Sleep(2 * time.Minute)
				if n := c.asked(hello); n != x.later {
					t.Errorf("%d instances later, want %d", n, x.later)
				}
			})
		})
	}
}

func TestAWakeDoesNotWaitForASlowWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 1)
		c.slow = func(replicas int32) time.Duration {
			if replicas == 0 {
				return 5 * time.Second
			}
			return 0
		}
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Before = scale.Inactive }))
		synctest.Wait() // the write of zero is under way
		time.Sleep(time.Second)
		c.mu.Lock()
		c.ready[hello] = 0
		c.mu.Unlock()
		b.arrive(hello)
		synctest.Wait()
		if diff := cmp.Diff([]int32{1}, c.written()); diff != "" {
			t.Errorf("writes before the slow one is back (-want +got):\n%s", diff)
		}
		time.Sleep(10 * time.Second)
		if n := c.asked(hello); n != 1 {
			t.Errorf("the slow write had the last word: %d instances", n)
		}
		if diff := cmp.Diff([]int32{1, 0, 1}, c.written()); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
	})
}

func TestFailedWritesAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		failures := 4
		c.refuse = func() error {
			if failures--; failures >= 0 {
				return errors.New("conflict")
			}
			return nil
		}
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa())
		synctest.Wait()
		began := time.Now()
		b.arrive(hello)
		for c.asked(hello) == 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if s, _ := b.State(hello); s.Err != nil {
			t.Errorf("Err = %v after success", s.Err)
		}
	})
}

func TestANewRevisionIsScaledOnceItsDeploymentIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Initial, s.Initialized = 3, false }))
		time.Sleep(300 * time.Millisecond)
		c.create(hello, 0)
		time.Sleep(time.Second)
		if n := c.asked(hello); n != 3 {
			t.Errorf("%d instances, want the initial scale", n)
		}
		s, _ := b.State(hello)
		if !s.Initialized || s.Activity != scale.Active {
			t.Errorf("State() = %+v", s)
		}
	})
}

func TestWhatOthersScaledIsPutRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 1)
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Min = 1 }))
		time.Sleep(2*time.Minute + 300*time.Millisecond) // between ticks, which would see the change, too
		c.create(hello, 0)                               // somebody's kubectl scale, unseen
		b.arrive(hello)
		synctest.Wait()
		if n := c.asked(hello); n != 1 {
			t.Errorf("%d instances while a request waits", n)
		}
		c.create(hello, 5)
		b.Observe(hello, 5)
		synctest.Wait()
		if n := c.asked(hello); n != 1 {
			t.Errorf("%d instances after it was seen", n)
		}
		for _, n := range []int32{4, 0} {
			time.Sleep(time.Minute)
			c.create(hello, n)
			c.listen(hello) // the instances follow, which the fleet tells
			synctest.Wait()
			if got := c.asked(hello); got != 1 {
				t.Errorf("%d instances after the fleet told of %d", got, n)
			}
		}
	})
}

func TestARequestFromBeforeTheRevisionWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		b := start(t, c)
		defer b.stop()
		b.arrive(hello)
		b.SetRevision(hello, kpa())
		synctest.Wait()
		if n := c.asked(hello); n != 1 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestRemovedAndForeignRevisionsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.create(hello, 0)
		b := start(t, c)
		defer b.stop()
		b.SetRevision(hello, kpa())
		synctest.Wait()
		b.SetRevision(hello, kpa(func(s *scale.Spec) { s.Class = scale.HPA }))
		b.arrive(hello)
		time.Sleep(time.Minute)
		if _, known := b.State(hello); known || len(c.written()) != 0 {
			t.Errorf("known: %v, writes: %v", known, c.written())
		}
	})
}

func TestManyWakesAtOnceAreWrittenInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.slow = func(int32) time.Duration { return 100 * time.Millisecond }
		b := start(t, c)
		defer b.stop()
		keys := make([]types.NamespacedName, 20)
		for i := range keys {
			keys[i] = types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("f-%05d", i)}
			c.create(keys[i], 0)
			b.SetRevision(keys[i], kpa())
		}
		synctest.Wait()
		for _, key := range keys {
			b.arrive(key)
		}
		time.Sleep(110 * time.Millisecond)
		if slices.ContainsFunc(keys, func(k types.NamespacedName) bool { return c.asked(k) != 1 }) {
			t.Errorf("writes after 110 ms: %v", c.written())
		}
	})
}
