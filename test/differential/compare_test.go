package differential

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/all"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

// A subject is a trigger with parameters that work.
type subject struct {
	Type                string
	Metadata, Auth, Env map[string]string
	// Kind is how the value is compared with the target.
	Kind autoscalingv2.MetricTargetType
	// Objects are the cluster's, for triggers that look at them.
	Objects trigger.Objects
	// Where are parameters that lead to the server: they are taken away, but not set to other values.
	Where []string
	// Try are more values of parameters, each tried alone.
	Try map[string][]string
	// Refused are parameters without which it must not be made, or with a value ("listLength=many")
	// with which it must not.
	Refused []string
}

// A state is one that a server can be in, or parameters, and what is to be read then.
type state struct {
	name string
	// over is put over the subject's parameters; an empty value takes one away. Names begin with
	// "auth " or "env " where they are not the trigger's metadata.
	over map[string]string
	// set has the server be in the state. Optional.
	set func(t *testing.T)
	// want is the value that both must read, "fails" where neither may read any, "refused" where
	// neither may be made, or "" if it is enough that they agree.
	want string
}

const (
	refused = "refused"
	fails   = "fails"
)

// empty is a value that is there and says nothing.
const empty = "\x00"

// odd are the values that each parameter is set to.
var odd = []string{empty, "junk", "0", "-1", "1.5", " 7 ", "true", "1e3", "99999999999999999999"}

// compare runs all that can be said of a subject: its states, in order, and then, in the last of
// them, its parameters one by one.
func compare(t *testing.T, s subject, states ...state) {
	t.Helper()
	for _, state := range states {
		s.row(t, state)
	}
	for _, kind := range []autoscalingv2.MetricTargetType{autoscalingv2.AverageValueMetricType, autoscalingv2.ValueMetricType, autoscalingv2.UtilizationMetricType, "Total"} {
		other := s
		other.Kind = kind
		other.row(t, state{name: "with metric type " + string(kind)})
	}
	for _, what := range s.Refused {
		name, value, set := strings.Cut(what, "=")
		if !set {
			s.row(t, state{name: "without " + name, over: map[string]string{name: ""}, want: refused})
		} else {
			s.row(t, state{name: what, over: map[string]string{name: value}, want: refused})
		}
	}
	s.each(t)
}

// covers says which triggers a test compares, which it must then.
func covers(t *testing.T, types ...string) {
	t.Helper()
	for _, name := range types {
		covered[name] = true
	}
	t.Cleanup(func() {
		for _, name := range types {
			if !t.Skipped() && tally.types[name] == 0 {
				t.Errorf("nothing of %s was compared", name)
			}
		}
	})
}

// covered are the types that tests have said.
var covered = map[string]bool{}

// merged puts parameters over others.
func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, one := range all {
		maps.Copy(out, one)
	}
	return out
}

// each takes away and alters each parameter by itself.
func (s subject) each(t *testing.T) {
	t.Helper()
	names := slices.Sorted(maps.Keys(s.Metadata))
	for name := range s.Auth {
		names = append(names, "auth "+name)
	}
	for name := range s.Try {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(s.Refused, name) {
			s.row(t, state{name: "without " + name, over: map[string]string{name: ""}})
		}
		values := s.Try[name]
		if !slices.Contains(s.Where, name) {
			values = slices.Concat(values, odd)
		}
		for _, value := range values {
			if row := name + "=" + value; !slices.Contains(s.Refused, row) {
				s.row(t, state{name: row, over: map[string]string{name: value}})
			}
		}
	}
}

// An outcome is what became of a trigger: refused, failing, or metrics with values.
type outcome struct {
	err    error
	failed string // refused or fails
	said   string // what it says of itself and what it reads
	values string
}

func (o outcome) String() string {
	if o.failed != "" {
		return o.failed + ": " + o.err.Error()
	}
	return o.said
}

// agrees tells whether two outcomes are the same to a user. One may notice at once what the other
// notices when it reads: there is no metric either way.
func (o outcome) agrees(with outcome) bool {
	return (o.failed != "") == (with.failed != "") && o.said == with.said
}

// is tells whether it is what was wanted.
func (o outcome) is(want string) bool {
	switch want {
	case "":
		return true
	case fails:
		return o.failed != ""
	case refused:
		return o.failed == refused
	default:
		return o.values == want
	}
}

// A peer is one of the two that are compared.
type peer interface {
	Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error)
	Read(ctx context.Context) ([]trigger.Reading, error)
	Close() error
}

const (
	// patience is how long servers may take to count what was put into them.
	patience = 15 * time.Second
	// chances is how long two may take to agree where nothing says what on: rates change meanwhile.
	chances = 2 * time.Second
)

// ports are what names of tests must not have, as they are others in each run.
var ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// row compares one state.
func (s subject) row(t *testing.T, row state) {
	t.Helper()
	name := ports.ReplaceAllString(strings.ReplaceAll(row.name, empty, "''"), "server")
	t.Run(name, func(t *testing.T) {
		reason, differs := deliberate()[t.Name()]
		tally.add(s.Type, t.Name())
		if row.set != nil {
			row.set(t)
		}
		c := s.config(t, row.over)
		ours, theirs := open(t, "ebb's", c, ebb), open(t, "KEDA's", c, keda)
		var a, b outcome
		within := patience
		if row.want == "" {
			within = chances
		}
		for deadline := time.Now().Add(within); ; <-time.After(50 * time.Millisecond) {
			a, b = ours(t), theirs(t)
			switch {
			case a.is(row.want) && b.is(row.want) && a.agrees(b) && !differs, differs && !a.agrees(b):
				return
			case a.failed == refused || b.failed == refused, differs, time.Now().After(deadline):
				if differs {
					t.Errorf("both find %s, yet it is listed that they differ: %s", a, reason)
				}
				t.Errorf("they differ, or are not what is wanted, %q:\n ebb: %s\nKEDA: %s", row.want, a, b)
				return
			}
		}
	})
}

// config returns the trigger as both are given it.
func (s subject) config(t *testing.T, over map[string]string) trigger.Config {
	t.Helper()
	c := trigger.Config{Environment: triggertest.Environment(t)}
	c.Objects = s.Objects
	c.TriggerType, c.TriggerIndex, c.MetricType = s.Type, triggertest.Index, s.Kind
	c.ScalableObjectName, c.ScalableObjectNamespace, c.ScalableObjectType = "subject", "default", "ScaledObject"
	c.GlobalHTTPTimeout = 3 * time.Second
	c.TriggerMetadata, c.AuthParams, c.ResolvedEnv = map[string]string{}, map[string]string{}, map[string]string{}
	maps.Copy(c.TriggerMetadata, s.Metadata)
	maps.Copy(c.AuthParams, s.Auth)
	maps.Copy(c.ResolvedEnv, s.Env)
	for name, value := range over {
		to := c.TriggerMetadata
		if rest, found := strings.CutPrefix(name, "auth "); found {
			name, to = rest, c.AuthParams
		} else if rest, found := strings.CutPrefix(name, "env "); found {
			name, to = rest, c.ResolvedEnv
		}
		switch value {
		case "":
			delete(to, name)
		case empty:
			to[name] = ""
		default:
			to[name] = value
		}
	}
	return c
}

var builders = all.Builders()

func ebb(_ context.Context, c trigger.Config) (peer, error) { return builders[c.TriggerType](c) }

func keda(ctx context.Context, c trigger.Config) (peer, error) {
	config := c.ScalerConfig
	config.TriggerMetadata, config.AuthParams, config.ResolvedEnv = maps.Clone(c.TriggerMetadata), maps.Clone(c.AuthParams), maps.Clone(c.ResolvedEnv)
	made, err := upstream(ctx, &config, cluster{objects: c.Objects})
	if err != nil {
		return nil, err
	}
	return scaler{made, context.WithoutCancel(ctx)}, nil
}

var errPanic = errors.New("it panics")

// open makes one of the two, and returns how to ask it.
func open(t *testing.T, whose string, c trigger.Config, build func(context.Context, trigger.Config) (peer, error)) func(*testing.T) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	made, err := guarded(func() (peer, error) { return build(ctx, c) })
	if err != nil {
		return func(*testing.T) outcome { return outcome{failed: refused, err: err} }
	}
	t.Cleanup(func() {
		if err := made.Close(); err != nil {
			t.Logf("closing %s: %v", whose, err)
		}
	})
	return func(t *testing.T) outcome {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := guarded(func() (outcome, error) { return ask(ctx, made) })
		if err != nil {
			return outcome{failed: fails, err: err}
		}
		return got
	}
}

// guarded turns a panic into an error, as those who call scalers do.
func guarded[T any](do func() (T, error)) (got T, err error) {
	defer func() {
		if said := recover(); said != nil {
			err = fmt.Errorf("%w: %v", errPanic, said)
		}
	}()
	return do()
}

func ask(ctx context.Context, made peer) (outcome, error) {
	specs, err := made.Specs(ctx)
	if err != nil {
		return outcome{}, err
	}
	readings, err := made.Read(ctx)
	if err != nil {
		return outcome{}, err
	}
	var said, values []string
	for _, spec := range specs {
		said = append(said, describe(spec))
	}
	for _, r := range readings {
		said = append(said, fmt.Sprintf("%s is %s, active: %v", r.Metric, r.Value.String(), r.Active))
		values = append(values, r.Value.String())
	}
	return outcome{said: strings.Join(said, "; "), values: strings.Join(values, " ")}, nil
}

func describe(spec autoscalingv2.MetricSpec) string {
	var name string
	var target autoscalingv2.MetricTarget
	switch {
	case spec.External != nil:
		name, target = spec.External.Metric.Name, spec.External.Target
	case spec.Resource != nil:
		name, target = string(spec.Resource.Name), spec.Resource.Target
	case spec.ContainerResource != nil:
		name, target = string(spec.ContainerResource.Name)+" of "+spec.ContainerResource.Container, spec.ContainerResource.Target
	}
	said := fmt.Sprintf("%s metric %s, %s", spec.Type, name, target.Type)
	if target.Value != nil {
		said += " of " + target.Value.String()
	}
	if target.AverageValue != nil {
		said += " of " + target.AverageValue.String() + " each"
	}
	if target.AverageUtilization != nil {
		said += fmt.Sprintf(" of %d%% each", *target.AverageUtilization)
	}
	return said
}

// tally counts comparisons.
var tally = counter{types: map[string]int{}, rows: map[string]bool{}, tests: map[string]bool{}}

type counter struct {
	mu    sync.Mutex
	types map[string]int
	rows  map[string]bool
	tests map[string]bool
}

func (c *counter) add(kind, row string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types[kind]++
	c.rows[row] = true
	test, _, _ := strings.Cut(row, "/")
	c.tests[test] = true
}

// TestMain also counts, and checks that each trigger and each listed difference was compared, or that
// its server was missing.
func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code := m.Run()
	for _, name := range slices.Sorted(maps.Keys(tally.types)) {
		fmt.Fprintf(os.Stderr, "%-24s%5d comparisons\n", name, tally.types[name])
	}
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		os.Exit(code)
	}
	for _, name := range slices.Sorted(maps.Keys(builders)) {
		if !covered[name] {
			fmt.Fprintln(os.Stderr, "nothing compares", name)
			code = 1
		}
	}
	for _, row := range slices.Sorted(maps.Keys(deliberate())) {
		test, _, _ := strings.Cut(row, "/")
		if tally.tests[test] && !tally.rows[row] {
			fmt.Fprintln(os.Stderr, "nothing compares what is listed as a difference:", row)
			code = 1
		}
	}
	os.Exit(code)
}
