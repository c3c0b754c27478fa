package outcome

import (
	"context"
	"encoding/json"
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
		"the first failed assertion is the cause, by its message": {
			events: asserted("x_test.go:3: \n", "Error Trace:\t/a/x_test.go:3\n", "Error:      \tShould be true\n", "Test:       \tTestX\n", "Messages:   \tthere should be two\n") +
				asserted("x_test.go:5: \n", "Error Trace:\t/a/x_test.go:5\n", "Error:      \tNot equal: \n") + `
{"Action":"output","Test":"TestX","Output":"    x_test.go:9: cleaning up\n"}
{"Action":"fail","Test":"TestX"}`,
			result: Fail, reason: "there should be two",
		},
		"one without a message tells what it found": {
			events: asserted("x_test.go:3: \n", "Error Trace:\t/a/x_test.go:3\n", "Error:      \tReceived unexpected error:\n") +
				asserted("x_test.go:5: \n", "Error Trace:\t/a/x_test.go:5\n", "Error:      \tShould be true\n", "Messages:   \tlater\n") + `
{"Action":"fail","Test":"TestX"}`,
			result: Fail, reason: "Received unexpected error:",
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

// asserted is what a failed assertion of testify's prints.
func asserted(place string, parts ...string) string {
	var text strings.Builder
	for i, line := range append([]string{place}, parts...) {
		before := "    "
		if i > 0 {
			before = "        \t"
		}
		event, err := json.Marshal(event{Action: "output", Test: "TestX", Output: before + line})
		if err != nil {
			panic(err)
		}
		text.Write(event)
		text.WriteString("\n")
	}
	return text.String()
}

func TestReadAProgramThatWasEnded(t *testing.T) {
	o := read(strings.NewReader(`{"Action":"output","Test":"TestA","Output":"    x_test.go:3: done\n"}
{"Action":"pass","Test":"TestA"}
{"Action":"output","Test":"TestB","Output":"    x_test.go:9: waiting\n"}
{"Action":"fail"}`), "")
	if o.Result != Fail || o.Reason != "waiting" {
		t.Errorf("got %q because %q", o.Result, o.Reason)
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
