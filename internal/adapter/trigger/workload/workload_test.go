package workload

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

func pod(name, app, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

func subject(objects *triggertest.Objects) triggertest.Subject {
	return triggertest.Subject{
		Type:     "kubernetes-workload",
		Build:    New,
		Metadata: map[string]string{"podSelector": "app=backend,app!=other", "value": "5", "activationValue": "2"},
		Objects:  objects,
		Metric:   "workload-default",
		Target:   "5",
		Required: []string{"podSelector", "value"},
		Wrong:    map[string]string{"podSelector": "app in", "value": "-1", "activationValue": "aa", "groupByNode": "perhaps"},
		Set: func(_ *testing.T, n int) {
			for i := range 12 {
				name := fmt.Sprintf("backend-%d", i)
				if i < n {
					objects.PutPod(pod(name, "backend", "", corev1.PodPending))
				} else {
					objects.DeletePod("default", name)
				}
			}
		},
		Break:  func(*testing.T) { objects.SetDown(true) },
		Repair: func(*testing.T) { objects.SetDown(false) },
	}
}

func TestWorkload(t *testing.T) {
	objects := triggertest.NewObjects()
	triggertest.Run(t, subject(objects))
	if n := objects.Watchers(); n != 0 {
		t.Errorf("%d watches were left behind", n)
	}
}

func TestWhatCounts(t *testing.T) {
	pods := []*corev1.Pod{
		pod("a", "backend", "n1", corev1.PodRunning),
		pod("b", "backend", "n1", corev1.PodRunning),
		pod("c", "backend", "n2", corev1.PodUnknown),
		pod("d", "backend", "", corev1.PodPending),
		pod("e", "backend", "n3", corev1.PodSucceeded),
		pod("f", "backend", "n4", corev1.PodFailed),
		pod("g", "frontend", "n5", corev1.PodRunning),
	}
	foreign := pod("h", "backend", "n6", corev1.PodRunning)
	foreign.Namespace = "elsewhere"
	for name, test := range map[string]struct {
		metadata map[string]string
		want     string
	}{
		"pods that have not ended, of the namespace, that match": {map[string]string{}, "4"},
		"the nodes of such pods, each once":                      {map[string]string{"groupByNode": "true"}, "2"},
		"all pods of the namespace by a selector for all":        {map[string]string{"podSelector": "app in (backend, frontend)"}, "5"},
		"none when nothing matches":                              {map[string]string{"podSelector": "app=none"}, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := triggertest.NewObjects()
			for _, p := range append(pods, foreign) {
				objects.PutPod(p)
			}
			source, err := New(subject(objects).Config(t, test.metadata))
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Read(t.Context())
			if err != nil || len(got) != 1 || got[0].Value.String() != test.want {
				t.Errorf("Read() = %+v, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestWatchTellsOfOtherCountsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := triggertest.NewObjects()
		objects.PutPod(pod("a", "backend", "", corev1.PodPending))
		source, err := New(subject(objects).Config(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		wakes := make(chan time.Time, 100)
		stop := source.(trigger.Pusher).Watch(trigger.Idle, func() { wakes <- time.Now() })
		expect := func(what string, n int) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if len(wakes) != n {
				t.Errorf("%d wakes for %s; want %d", len(wakes), what, n)
			}
			for len(wakes) > 0 {
				<-wakes
			}
		}
		expect("nothing", 0)
		for range 50 {
			objects.PutPod(pod("a", "backend", "", corev1.PodRunning))
			objects.PutPod(pod("x", "frontend", "", corev1.PodRunning))
		}
		expect("changes that do not count", 0)
		for i := range 50 {
			objects.PutPod(pod(fmt.Sprint(i), "backend", "", corev1.PodRunning))
		}
		expect("a burst", 1)
		objects.PutPod(pod("a", "backend", "", corev1.PodSucceeded))
		expect("the end of one", 1)
		objects.SetDown(true)
		objects.PutPod(pod("y", "backend", "", corev1.PodRunning))
		expect("an outage", 1)
		objects.SetDown(false)
		objects.PutPod(pod("z", "backend", "", corev1.PodRunning))
		expect("its end", 1)
		objects.PutPod(pod("q", "backend", "", corev1.PodRunning))
		stop()
		expect("a change after which nobody watched", 0)
	})
}
