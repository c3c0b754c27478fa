package scaler_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/component/scaler"
)

const (
	// outage is how long a server is away: long enough for pauses to have grown.
	outage = 3 * time.Second
	// mended is how soon work is acted upon once its server is back, and slack what a loaded machine
	// adds to that.
	mended = time.Second
	slack  = 2 * time.Second
)

// A backend is a real server with a queue, and the trigger that looks at it.
type backend struct {
	*process.Process
	kind     string
	build    trigger.Build
	metadata map[string]string
	auth     map[string]string
	set      func(t *testing.T, n int) // has so much work wait
}

// through returns a rig whose triggers reach the backend by a net.
func (b *backend) through(t *testing.T) (*process.Net, *rig) {
	t.Helper()
	net := process.NewNet(t)
	r := newRig(t, scaler.Config{
		Builders:    map[string]trigger.Build{b.kind: b.build},
		Environment: trigger.Environment{Dial: net.Dial, Shared: endpoint.NewPool(t.Context()), Log: quiet},
		Timeout:     time.Second,
	})
	r.auth = b.auth
	t.Cleanup(r.end)
	return net, r
}

// object returns one with the backend's trigger, and maybe others, that is polled so often.
func (b *backend) object(seconds int32, more ...string) *kedav1alpha1.ScaledObject {
	so := object(append([]string{b.kind}, more...)...)
	maps.Copy(so.Spec.Triggers[0].Metadata, b.metadata)
	so.Spec.PollingInterval = &seconds
	return so
}

// eventually waits until something is so.
func (r *rig) eventually(within time.Duration, what string, is func() bool) {
	r.t.Helper()
	begin := time.Now()
	for !is() {
		if time.Since(begin) > within {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: not within %s; replicas %d, written %d, told %q", what, within, r.replicas, r.history, r.events)
		}
		<-time.After(5 * time.Millisecond)
	}
	r.t.Logf("%s: after %s", what, time.Since(begin).Round(time.Millisecond))
}

// comes waits for a number of replicas, within a second.
func (r *rig) comes(n int32, what string) {
	r.t.Helper()
	r.eventually(mended+slack, what, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.replicas == n
	})
}

// ready waits for the condition Ready.
func (r *rig) ready(want, what string) {
	r.t.Helper()
	r.eventually(10*time.Second, what, func() bool { return r.condition(kedav1alpha1.ConditionReady) == want })
}

// wrote checks all that was written so far.
func (r *rig) wrote(what string, want ...int32) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.history, want) {
		r.t.Errorf("%s: written %d; want %d", what, r.history, want)
	}
}

const broken = "False TriggerError"

func TestOutages(t *testing.T) {
	for name, start := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			t.Run("replicas stay", func(t *testing.T) { b.testStay(t) })
			t.Run("work that came meanwhile is acted upon", func(t *testing.T) { b.testWake(t) })
			if b.auth["password"] != "" { // others are asked by anybody
				t.Run("a password is mended", b.testPassword)
			}
		})
	}
}

// testStay: an outage of whatever kind changes what the object says of itself, and nothing else.
func (b *backend) testStay(t *testing.T) {
	b.set(t, 12)
	net, r := b.through(t)
	r.follow(b.object(1, "push"))
	r.comes(3, "12 of 5 each")
	r.wrote("at first", 3)
	for what, harm := range map[string]func(){"cut": net.Cut, "reset": net.Reset, "silent": net.Hold} {
		harm()
		r.ready(broken, what)
		for range 3 { // as the autoscaler does
			if got := r.metric("s0-" + b.kind); got == "0" {
				t.Errorf("%s: the autoscaler sees %s", what, got)
			}
			<-time.After(200 * time.Millisecond)
		}
		r.wrote(what, 3)
		net.Heal()
		r.ready("", what+", then whole")
	}
	b.Stop(t)
	r.ready(broken, "ended")
	b.Start(t)
	r.ready("", "back again")
	r.wrote("through outages", 3)
	net.Hold()
	defer net.Heal()
	r.ready(broken, "silent again")
	r.servers["push"].set(18, nil)
	r.comes(4, "another trigger has work while one's server is silent")
}

// testWake: what comes while nobody can be told is acted upon once the way is whole, by a push; the
// interval is far too long to help.
func (b *backend) testWake(t *testing.T) {
	for what, harm := range map[string]func(*process.Net){"cut": (*process.Net).Cut, "reset": (*process.Net).Reset, "silent": (*process.Net).Hold} {
		b.set(t, 0)
		net, r := b.through(t)
		r.follow(b.object(3600))
		r.eventually(10*time.Second, "nothing waits", func() bool { return strings.HasPrefix(r.condition(kedav1alpha1.ConditionActive), "False") })
		<-time.After(time.Second) // it is told by now
		harm(net)
		b.set(t, 12)
		<-time.After(outage)
		r.wrote(what)
		net.Heal()
		r.comes(3, what+", then whole")
		r.wrote(what+", then whole", 3)
	}
}

// testPassword: with a wrong password nothing is written; a rotation mends it.
func (b *backend) testPassword(t *testing.T) {
	b.set(t, 12)
	_, r := b.through(t)
	r.auth = maps.Clone(b.auth)
	r.auth["password"] = "wrong"
	r.follow(b.object(3600))
	r.ready(broken, "a wrong password")
	r.wrote("with a wrong password")
	r.mu.Lock()
	r.auth = b.auth
	signs := slices.Clone(r.signs)
	r.mu.Unlock()
	for _, changed := range signs {
		changed()
	}
	r.comes(3, "the right password")
	r.ready("", "the right password")
	r.wrote("with the right password", 3)
}

func TestAFallbackComesAndGoesWithAnOutage(t *testing.T) {
	b := startRedis(t)
	b.set(t, 12)
	net, r := b.through(t)
	so := b.object(1)
	so.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: 2, Replicas: 4}
	r.follow(so)
	r.comes(3, "12 of 5 each")
	net.Cut()
	fallback := func(want string) func() bool {
		return func() bool { return r.condition(kedav1alpha1.ConditionFallback) == want }
	}
	r.eventually(10*time.Second, "the fallback", fallback("True FallbackExists"))
	r.comes(4, "as many as it says")
	net.Heal()
	r.eventually(10*time.Second, "no fallback any more", fallback("False NoFallbackFound"))
	r.wrote("up, and down is the autoscaler's", 3, 4)
}
