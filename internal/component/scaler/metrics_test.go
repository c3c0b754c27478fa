package scaler_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// series are an engine's as a scraper sees them, without their comments.
func (r *rig) series() string {
	r.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Engine)
	families, err := registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			r.t.Fatal(err)
		}
	}
	var out []string
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func TestNumbersHaveKedasNames(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("push", "poll", "cpu")
		so.Spec.Triggers[1].Name = ""
		r.servers["poll"].err = errors.New("away")
		r.servers["push"].slow = 20 * time.Millisecond
		r.servers["push"].n = 7
		r.follow(so)
		<-time.After(31 * time.Second) // the first question, and that of the interval
		synctest.Wait()
		want := `keda_internal_scale_loop_latency_seconds{namespace="shop",resource="orders",type="scaledobject"} 0.08
keda_scaled_object_errors_total{namespace="shop",scaledObject="orders"} 2
keda_scaler_active{metric="cpu",namespace="shop",scaledObject="orders",scaler="t2",triggerIndex="2",type="scaledobject"} 1
keda_scaler_active{metric="s0-push",namespace="shop",scaledObject="orders",scaler="t0",triggerIndex="0",type="scaledobject"} 1
keda_scaler_active{metric="s1-poll",namespace="shop",scaledObject="orders",scaler="poll",triggerIndex="1",type="scaledobject"} 0
keda_scaler_detail_errors_total{metric="s0-push",namespace="shop",scaledObject="orders",scaler="t0",triggerIndex="0",type="scaledobject"} 0
keda_scaler_detail_errors_total{metric="s1-poll",namespace="shop",scaledObject="orders",scaler="poll",triggerIndex="1",type="scaledobject"} 2
keda_scaler_metrics_latency_seconds{metric="s0-push",namespace="shop",scaledObject="orders",scaler="t0",triggerIndex="0",type="scaledobject"} 0.02
keda_scaler_metrics_latency_seconds{metric="s1-poll",namespace="shop",scaledObject="orders",scaler="poll",triggerIndex="1",type="scaledobject"} 0
keda_scaler_metrics_value{metric="s0-push",namespace="shop",scaledObject="orders",scaler="t0",triggerIndex="0",type="scaledobject"} 7
`
		if diff := cmp.Diff(want, r.series()); diff != "" {
			t.Error(diff)
		}
		r.Unfollow(key)
		if left := r.series(); left != "" {
			t.Errorf("an object that is gone still has\n%s", left)
		}
	})
}

func TestAFallbackIsTheValueThatIsTold(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("poll")
		so.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: 1, Replicas: 3}
		r.servers["poll"].err = errors.New("away")
		r.follow(so)
		<-time.After(time.Minute)
		synctest.Wait()
		if want := `keda_scaler_metrics_value{metric="s0-poll",namespace="shop",scaledObject="orders",scaler="t0",triggerIndex="0",type="scaledobject"} 15`; !strings.Contains(r.series(), want) {
			t.Errorf("there is no\n%s in\n%s", want, r.series())
		}
	})
}

func TestAFormulasResultIsToldBesideItsParts(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("push", "poll")
		so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{Formula: "t0 + t1", Target: "5", ActivationTarget: "100"}}
		r.servers["push"].n, r.servers["poll"].n = 7, 4
		r.follow(so)
		<-time.After(time.Second)
		synctest.Wait()
		all := r.series()
		for _, want := range []string{
			`keda_scaler_metrics_value{metric="composite-metric",namespace="shop",scaledObject="orders",scaler="composite-metric",triggerIndex="0",type="scaledobject"} 11`,
			`keda_scaler_active{metric="composite-metric",namespace="shop",scaledObject="orders",scaler="composite-metric",triggerIndex="0",type="scaledobject"} 0`,
			`keda_scaler_metrics_value{metric="s1-poll",namespace="shop",scaledObject="orders",scaler="t1",triggerIndex="1",type="scaledobject"} 4`,
		} {
			if !strings.Contains(all, want) {
				t.Errorf("there is no\n%s in\n%s", want, all)
			}
		}
		if strings.Contains(all, `keda_scaler_active{metric="s1-poll"`) {
			t.Error("a part of a formula is said to be active or not; the formula is")
		}
	})
}

func TestScaledJobsHaveSeriesOfTheirOwnType(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.servers["push"].n = 3
		job := &kedav1alpha1.ScaledJob{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		job.Spec.Triggers = []kedav1alpha1.ScaleTriggers{{Type: "push", Metadata: map[string]string{}}}
		if _, err := r.Jobs().Follow(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		synctest.Wait()
		want := `keda_internal_scale_loop_latency_seconds{namespace="shop",resource="orders",type="scaledjob"} 0
keda_scaler_active{metric="s0-push",namespace="shop",scaledObject="orders",scaler="push",triggerIndex="0",type="scaledjob"} 1
keda_scaler_detail_errors_total{metric="s0-push",namespace="shop",scaledObject="orders",scaler="push",triggerIndex="0",type="scaledjob"} 0
keda_scaler_metrics_latency_seconds{metric="s0-push",namespace="shop",scaledObject="orders",scaler="push",triggerIndex="0",type="scaledjob"} 0
keda_scaler_metrics_value{metric="s0-push",namespace="shop",scaledObject="orders",scaler="push",triggerIndex="0",type="scaledjob"} 3
`
		if diff := cmp.Diff(want, r.series()); diff != "" {
			t.Error(diff)
		}
	})
}
