package outcome

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	cases := map[string]struct {
		events string
		result Result
		reason string
	}{
		"a pass needs no reason": {
			events: `{"Action":"output","Test":"TestX","Output":"    x_test.go:3: fine\n"}
{"Action":"pass","Test":"TestX"}`,
			result: Pass,
		},
		"a skip says why": {
			events: `{"Action":"output","Test":"TestX","Output":"    x_test.go:3: not for us\n"}
{"Action":"skip","Test":"TestX"}`,
			result: Skip, reason: "not for us",
		},
		"a failure's reason is the last thing its own file said": {
			events: `{"Action":"output","Test":"TestX","Output":"    x_test.go:3: first\n"}
{"Action":"output","Test":"TestX","Output":"    x_test.go:4: last\n"}
{"Action":"output","Test":"TestX","Output":"    service.go:146: cleaning up\n"}
{"Action":"fail","Test":"TestX"}`,
			result: Fail, reason: "last",
		},
		"a subtest's failure is the cause of its parent's": {
			events: `{"Action":"output","Test":"TestX/tcp","Output":"    x_test.go:3: refused\n"}
{"Action":"fail","Test":"TestX/tcp"}
{"Action":"output","Test":"TestX","Output":"    x_test.go:9: done\n"}
{"Action":"fail","Test":"TestX"}`,
			result: Fail, reason: "tcp: refused",
		},
		"no end is no result": {
			events: `{"Action":"output","Test":"TestX","Output":"panic: oh\n"}`,
		},
		"a test that does not end is known by what it said last": {
			events: `{"Action":"output","Test":"TestX","Output":"    x_test.go:3: waiting\n"}`,
			reason: "; it last said: waiting",
		},
		"what is no event is kept as output": {
			events: `plain words
{"Action":"pass","Test":"TestX"}`,
			result: Pass,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := read(strings.NewReader(c.events), "TestX")
			if o.Result != c.result || o.Reason != c.reason {
				t.Errorf("got %q because %q, want %q because %q", o.Result, o.Reason, c.result, c.reason)
			}
		})
	}
}

func TestRunWithoutResult(t *testing.T) {
	cases := map[string]struct{ script, reason string }{
		"a panic is the reason": {
			script: `printf '%s\n' '{"Action":"output","Output":"panic: test timed out\n"}'; exit 2`, reason: "panic: test timed out",
		},
		"a silent end is said":     {script: "exit 1", reason: "the suite ended before the test did"},
		"success without any test": {script: "true", reason: "the suite ended before the test did"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := Run(exec.CommandContext(t.Context(), "sh", "-c", c.script), "TestX")
			if o.Result != Fail || o.Reason != c.reason {
				t.Errorf("got %q because %q, want a failure because %q", o.Result, o.Reason, c.reason)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	cases := map[string]struct{ script, said string }{
		"a suite that is interrupted cleans up": {
			script: `trap 'echo clean; exit 1' INT; echo up; while :; do sleep 0.02; done`, said: "clean",
		},
		"one that does not leave is ended": {
			script: `trap '' INT; echo up; while :; do sleep 0.02; done`, said: "up",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			cmd := Converter("sh").Command(ctx, "", "TestX")
			cmd.Args, cmd.WaitDelay = []string{"sh", "-c", c.script}, 300*time.Millisecond
			o := Run(cmd, "TestX")
			if o.Result != Fail || !strings.Contains(o.Output, c.said) {
				t.Errorf("got %q with %q, want a failure that said %q", o.Result, o.Output, c.said)
			}
		})
	}
}
