package pod_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/component/node/logs"
	"ebb.dev/ebb/internal/component/node/pod"
)

const aLine = "2030-01-01T00:00:00.000000000Z stderr F out of cheese\n"

func TestLogsOfRunsNobodyCanAskForGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPod(nil)
		b.start(p, nil)
		dir := filepath.Join(pod.LogFolder(b.host.LogDir, p), "user")
		for _, attempt := range []string{"0", "1", "2"} {
			time.Sleep(10 * time.Minute) // whatever the back-off
			synctest.Wait()
			for _, suffix := range []string{".log", ".log.1", ".log.4"} {
				if err := os.WriteFile(filepath.Join(dir, attempt+suffix), []byte(aLine), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.runtime.End(p.UID, "user", 7)
			synctest.Wait()
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		// The fourth run goes on: the one before it can be asked for.
		if want := []string{"2.log", "2.log.1", "2.log.4"}; !slices.Equal(names, want) {
			t.Errorf("left %v, want %v", names, want)
		}
	})
}

func TestLastWordsRightAfterTheLogWasRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.host.LogTail = logs.Tail
		p := newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		})
		m := b.start(p, nil)
		synctest.Wait()
		path := filepath.Join(pod.LogFolder(b.host.LogDir, p), "user", "0.log")
		for name, text := range map[string]string{path + ".1": aLine, path: ""} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b.runtime.End(p.UID, "user", 7)
		synctest.Wait()
		if last := user(m).LastTerminationState.Terminated; last == nil || last.Message != "out of cheese\n" {
			t.Errorf("last = %+v", last)
		}
	})
}
