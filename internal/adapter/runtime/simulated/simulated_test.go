package simulated_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/runtimetest"
	"ebb.dev/ebb/internal/adapter/runtime/simulated"
)

func open(t testing.TB, cfg simulated.Config) *simulated.Runtime {
	t.Helper()
	r, err := simulated.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSuite(t *testing.T) {
	runtimetest.Run(t, runtimetest.Subject{
		Open: func(t testing.TB, _ string) runtime.Runtime { return open(t, simulated.Config{}) },
	})
}

func TestContainersEndAsScripted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, simulated.Config{StartTime: time.Second, TerminateFor: 5 * time.Second})
		defer r.Close()
		if _, err := r.StartSandbox(t.Context(), runtime.SandboxSpec{ID: "pod"}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		start := func(id string, annotations map[string]string) {
			t.Helper()
			if _, err := r.StartContainer(t.Context(), runtime.ContainerSpec{ID: id, SandboxID: "pod", Annotations: annotations}); err != nil {
				t.Fatal(err)
			}
		}
		start("job", map[string]string{simulated.RunsFor: "20s", simulated.EndsWith: "3"})
		start("server", nil)
		if err := r.SignalContainer(t.Context(), "server", 15); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range 2 {
			c := <-r.Exits()
			got = append(got, fmt.Sprint(c.ID, " ", c.ExitCode, " after ", time.Since(begin)))
		}
		if diff := cmp.Diff([]string{"server 0 after 7s", "job 3 after 21s"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAddressesAreNotGivenTwice(t *testing.T) {
	r := open(t, simulated.Config{})
	defer r.Close()
	seen := map[string]bool{}
	for i := range 5000 {
		sb, err := r.StartSandbox(t.Context(), runtime.SandboxSpec{ID: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		if seen[sb.IP.String()] {
			t.Fatalf("%s given twice", sb.IP)
		}
		seen[sb.IP.String()] = true
	}
}
