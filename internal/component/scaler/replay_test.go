package scaler_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/component/scaler"
	"ebb.dev/ebb/internal/domain/recording"
)

// parse reads a recording.
func parse(t *testing.T, text string) []recording.Sample {
	t.Helper()
	samples, err := recording.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return samples
}

// shown is a replay's steps in short.
func shown(r *scaler.Replay) (out []string) {
	for _, s := range r.Steps {
		out = append(out, fmt.Sprintf("%s %d→%d %s", s.At.Sub(r.From), s.From, s.To, s.Why))
	}
	return out
}

func TestARecordingIsReplayed(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		got, err := r.Replay(t.Context(), object("push"), parse(t, "time,t0\n0,0\n60,20\n120,50\n180,0\n600,0\n"))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"1m0s 0→4 work came, as s0-push is 20 with a target of 5",
			"2m0s 4→8 as s0-push is 50 with a target of 5, bounded by behavior.scaleUp",
			"2m15s 8→10 as s0-push is 50 with a target of 5",
			"7m45.000000001s 10→0 no trigger was active for the cooldown period",
		}
		if diff := cmp.Diff(want, shown(&got)); diff != "" {
			t.Error(diff)
		}
		run := 4*time.Minute + 8*15*time.Second + 10*(5*time.Minute+30*time.Second)
		if got.Start != 0 || got.Peak != 10 || got.PeakAt.Sub(got.From) != 135*time.Second || got.Wakes != 1 || got.Run.Round(time.Second) != run || got.AtMax != 0 {
			t.Errorf("Replay() = %+v; want one wake, a peak of 10 and %s of running", got, run)
		}
		if r.questions() != 0 || len(r.history) != 0 {
			t.Errorf("a replay asked %d times and wrote %d", r.questions(), r.history)
		}
	})
}

// questions counts what all servers were asked.
func (r *rig) questions() (n int) {
	for _, s := range r.servers {
		n += s.questions()
	}
	return n
}

func TestReplaysFollowTheObjectsRules(t *testing.T) {
	two := int32(2)
	for name, c := range map[string]struct {
		change    func(*kedav1alpha1.ScaledObject)
		recording string
		want      []string
	}{
		"a minimum is there from the start, and kept": {
			change:    func(so *kedav1alpha1.ScaledObject) { so.Spec.MinReplicaCount = &two },
			recording: "time,t0\n0,0\n10,30\n20,0\n400,0\n",
			want:      []string{"10s 2→6 as s0-push is 30 with a target of 5", "5m30s 6→2 as no metric asks for more"},
		},
		"a maximum bounds": {
			change:    func(so *kedav1alpha1.ScaledObject) { so.Spec.MaxReplicaCount = &two },
			recording: "time,s0-push\n0,30\n10,30\n",
			want:      []string{"0s 0→2 work came, as s0-push is 30 with a target of 5, bounded by maxReplicaCount"},
		},
		"a fallback takes the place of what fails for long enough": {
			change: func(so *kedav1alpha1.ScaledObject) {
				so.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: 2, Replicas: 3}
			},
			recording: "time,t0\n0,4\n30,failed\n150,failed\n",
			want:      []string{"0s 0→1 work came by s0-push", "1m30s 1→3 as s0-push is 15 with a target of 5"},
		},
		"what fails without a fallback takes nothing away": {
			change:    func(*kedav1alpha1.ScaledObject) {},
			recording: "time,t0\n0,9\n30,failed\n3000,failed\n",
			want:      []string{"0s 0→2 work came, as s0-push is 9 with a target of 5"},
		},
		"a peak counts for five minutes": {
			change:    func(*kedav1alpha1.ScaledObject) {},
			recording: "time,t0\n0,5\n60,40\n90,5\n600,5\n",
			want: []string{
				"0s 0→1 work came by s0-push", "1m0s 1→5 as s0-push is 40 with a target of 5, bounded by behavior.scaleUp",
				"1m15s 5→8 as s0-push is 40 with a target of 5", "6m30s 8→1 as s0-push is 5 with a target of 5",
			},
		},
		"a formula decides": {
			change: func(so *kedav1alpha1.ScaledObject) {
				so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{Formula: "t0 * 2", Target: "10"}}
			},
			recording: "time,t0\n0,0\n10,15\n20,15\n",
			want:      []string{"10s 0→3 work came, as composite-metric is 30 with a target of 10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, r *rig) {
				so := object("push")
				c.change(so)
				got, err := r.Replay(t.Context(), so, parse(t, c.recording))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, shown(&got)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestRecordingsThatDoNotFitAreRefused(t *testing.T) {
	paused := object("push")
	paused.Annotations[kedav1alpha1.PausedAnnotation] = "true"
	for name, c := range map[string]struct {
		object    *kedav1alpha1.ScaledObject
		recording string
		want      string
	}{
		"a trigger is missing":    {object("push", "poll"), "time,t0\n0,1", "the recording says nothing of trigger t1"},
		"a name stands for none":  {object("push"), "time,t0,t7\n0,1,1", `"t7" in the recording is neither`},
		"only the autoscaler can": {object("cpu"), "time,t0\n0,1", `"t0" in the recording is neither`},
		"it is paused":            {paused, "time,t0\n0,1", scaler.ErrPaused.Error()},
		"it has no end":           {object("push"), "time,t0\n0,1\n10000000000,1", scaler.ErrTooLong.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, r *rig) {
				if _, err := r.Replay(t.Context(), c.object, parse(t, c.recording)); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Replay() fails with %v, want %q", err, c.want)
				}
			})
		})
	}
}

// function is the invocations a minute of one recorded function, as a recording of a trigger.
func function(t *testing.T, name string) (samples []recording.Sample, most float64) {
	t.Helper()
	file, err := os.Open("../../domain/scale/testdata/azure-functions-2019/sample.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		if row[0] != name {
			continue
		}
		for minute, cell := range row[3:] {
			n, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			most = max(most, n)
			samples = append(samples, recording.Sample{At: time.Unix(int64(minute)*60, 0), Values: map[string]float64{"t0": n}})
		}
	}
	if len(samples) == 0 {
		t.Fatal(errors.New("there is no function " + name))
	}
	return samples, most
}

// need is the least time that replicas must run to be there for all that is recorded.
func need(samples []recording.Sample, target float64) (run time.Duration) {
	for i := 1; i < len(samples); i++ {
		run += time.Duration(math.Ceil(samples[i-1].Values["t0"]/target)) * samples[i].At.Sub(samples[i-1].At)
	}
	return run
}

func TestRecordedFunctionsAreReplayed(t *testing.T) {
	for name, c := range map[string]struct {
		wakes int
		peak  int32
	}{
		"7d43757a7ab9": {4, 2},  // a queue that is quiet most of the time
		"30824176d78e": {9, 31}, // bursts of 151
		"bb5d90eaa304": {24, 8}, // every ten minutes
		"370bc8c52552": {1, 3},  // requests in every minute
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, r *rig) {
				samples, most := function(t, name)
				got, err := r.Replay(t.Context(), object("push"), samples)
				if err != nil {
					t.Fatal(err)
				}
				if got.Wakes != c.wakes || got.Peak != c.peak {
					t.Errorf("%d wakes and a peak of %d for at most %g a minute, want %d and %d", got.Wakes, got.Peak, most, c.wakes, c.peak)
				}
				span, least := got.To.Sub(got.From), need(samples, 5)
				if got.Run < least || got.Run > time.Duration(got.Peak)*span {
					t.Errorf("replicas ran for %s in %s; want %s at least, and no more than the peak all the time", got.Run, span, least)
				}
				at := int32(0)
				for _, s := range got.Steps {
					if s.From != at || s.To == s.From || s.Why == "" {
						t.Errorf("step %+v after %d replicas", s, at)
					}
					at = s.To
				}
			})
		})
	}
}
