package etcd

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// watched returns the times at which an idle trigger wakes.
func watched(t testing.TB, by trigger.Source) <-chan time.Time {
	t.Helper()
	woken := make(chan time.Time, 1000)
	t.Cleanup(by.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- time.Now() }))
	return woken
}

// wake waits for one.
func wake(t testing.TB, woken <-chan time.Time) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody told of anything")
	}
}

func TestTriggersShareAConnectionAndAStream(t *testing.T) {
	s := start(t, nil, "")
	relay := process.NewRelay(t, s.address)
	env := triggertest.Environment(t)
	woken := make(chan int, 1000)
	for n := range 100 {
		key := fmt.Sprintf("jobs/%d", n)
		s.put(t, key, "1")
		made := s.build(t, env, map[string]string{"endpoints": relay.Address, "watchKey": key}, nil)
		t.Cleanup(made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- n }))
		if _, err := read(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // each is woken once when it is watched
		<-woken
	}
	s.put(t, "jobs/42", "2")
	if n := <-woken; n != 42 {
		t.Errorf("trigger %d was told of another one's work", n)
	}
	if n := relay.Accepted(); n != 1 {
		t.Errorf("100 triggers made %d connections", n)
	}
}

func TestNoChangeIsMissedInAnOutage(t *testing.T) {
	s := start(t, nil, "")
	s.put(t, "jobs/waiting", "0")
	relay := process.NewRelay(t, s.address)
	made := s.build(t, triggertest.Environment(t), map[string]string{"endpoints": relay.Address}, nil)
	woken := watched(t, made)
	wake(t, woken)
	relay.Cut()
	s.put(t, "jobs/waiting", "8")
	relay.Heal()
	wake(t, woken)
	s.Stop(t)
	s.Start(t)
	s.put(t, "jobs/waiting", "9")
	wake(t, woken)
	if got, err := read(t.Context(), made); err != nil || got != 9 {
		t.Errorf("Read() = %v, %v; want 9", got, err)
	}
}

func TestWhatWasCompactedIsMadeUpFor(t *testing.T) {
	s := start(t, nil, "")
	s.put(t, "jobs/waiting", "0")
	relay := process.NewRelay(t, s.address)
	woken := watched(t, s.build(t, triggertest.Environment(t), map[string]string{"endpoints": relay.Address}, nil))
	wake(t, woken)
	relay.Cut()
	for n := range 10 {
		s.put(t, "jobs/waiting", strconv.Itoa(n))
	}
	last, err := s.client.Put(t.Context(), "jobs/waiting", "11")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Compact(t.Context(), last.Header.Revision); err != nil {
		t.Fatal(err)
	}
	relay.Heal()
	wake(t, woken)
}

func TestASilentWatchIsMadeAnew(t *testing.T) {
	s := start(t, nil, "")
	made := s.build(t, triggertest.Environment(t), nil, nil).(*source)
	made.silence = 50 * time.Millisecond
	woken := watched(t, made)
	for range 3 {
		wake(t, woken)
	}
}

func TestWhileWorkGoesOnChangesAreGathered(t *testing.T) {
	s := start(t, nil, "")
	made := s.build(t, triggertest.Environment(t), nil, nil).(*source)
	woken := make(chan time.Time, 1000)
	defer made.Watch(trigger.Active, func() { woken <- time.Now() })()
	wake(t, woken)
	begin, last := time.Now(), 0
	for ; time.Since(begin) < later+later/2; last++ {
		s.put(t, "jobs/waiting", strconv.Itoa(last))
	}
	wake(t, woken)
	<-time.After(later + later/4)
	if n := len(woken) + 1; n > 4 {
		t.Errorf("woken %d times by %d changes in %s", n, last, time.Since(begin))
	}
}
