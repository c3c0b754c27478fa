// Package outcome runs one test function and reads how it went and why.
package outcome

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Result is how a test ended.
type Result string

// The results a test can have.
const (
	Pass Result = "pass"
	Fail Result = "fail"
	Skip Result = "skip"
)

// An Outcome is one run of one test function.
type Outcome struct {
	Result Result
	Reason string // of a failure or a skip
	Took   time.Duration
	Output string
}

// Run starts a command that is test2json around one test function, or around a whole program where none
// is named, and reads it to its end.
func Run(cmd *exec.Cmd, test string) Outcome {
	began := time.Now()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.Process == nil {
		return Outcome{Result: Fail, Reason: fmt.Sprintf("starting the test: %v", err)}
	}
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Setpgid {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what would not leave; mostly there is nothing
	}
	o := read(&out, test)
	o.Took = time.Since(began).Round(10 * time.Millisecond)
	exit := new(exec.ExitError)
	if o.Result == "" || o.Result == Pass && err != nil {
		o.Result = Fail
		o.Reason = "the suite ended before the test did" + o.Reason
		if err != nil && !errors.As(err, &exit) {
			o.Reason += ": " + err.Error()
		}
		if reason := panicked(o.Output); reason != "" {
			o.Reason = reason
		}
	}
	return o
}

// A Converter is the path of test2json, which makes events of what a test program prints.
type Converter string

// FindConverter asks the go command, which builds it where it is not there yet.
func FindConverter(ctx context.Context) (Converter, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "-n", "test2json").Output()
	if err != nil {
		return "", fmt.Errorf("finding test2json: %w", err)
	}
	return Converter(strings.TrimSpace(string(out))), nil
}

// Command runs one test function of a suite's program, all of them if none is named. When its context
// ends it is interrupted, upon which suites delete what they made.
func (c Converter) Command(ctx context.Context, program, test string, args ...string) *exec.Cmd {
	only := "^" + test + "$"
	if test == "" {
		only = "."
	}
	args = append([]string{"-t", program, "-test.v=test2json", "-test.run=" + only, "-test.count=1"}, args...)
	cmd := exec.CommandContext(ctx, string(c), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = leaving
	return cmd
}

// leaving is how long an interrupted test may take to clean up.
const leaving = 30 * time.Second

// event is a line of test2json's.
type event struct{ Action, Test, Output string }

// read collects the events of a test function and its subtests.
func read(from io.Reader, test string) Outcome {
	var all strings.Builder
	t := told{said: map[string]words{}, ended: map[Result][]string{}}
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			all.WriteString(scanner.Text() + "\n")
			continue
		}
		all.WriteString(e.Output)
		t.hear(&e, test)
	}
	o := Outcome{Result: t.result, Output: all.String()}
	if test == "" && o.Result == Pass && len(t.ended[Pass]) == 0 && len(t.ended[Skip]) > 0 {
		o.Result = Skip
	}
	switch last := t.said[test]; {
	case o.Result == Fail || o.Result == Skip:
		o.Reason = reason(t.ended[o.Result], t.said, test)
		if o.Reason == "" && test == "" { // the program was ended while a test ran
			o.Reason = reason([]string{t.last}, t.said, test)
		}
	case o.Result == "" && last != words{}:
		o.Reason = "; it last said: " + cmp.Or(last.test, last.other)
	}
	return o
}

// told is what events told so far: the test's result, what each test said last, which said something
// last, and which ended how.
type told struct {
	result Result
	said   map[string]words
	last   string
	ended  map[Result][]string
}

func (t *told) hear(e *event, test string) {
	switch e.Action {
	case "output":
		t.said[e.Test] = t.said[e.Test].and(e.Output)
		if e.Test != "" {
			t.last = e.Test
		}
	case "pass", "fail", "skip":
		result := Result(e.Action)
		if e.Test == test {
			t.result = result // of the program when no test is named
		}
		if e.Test != "" {
			t.ended[result] = append(t.ended[result], e.Test)
		}
	}
}

// reason is what the first test that ended so asserted in vain, or else said last: subtests end before
// the function they are part of.
func reason(tests []string, said map[string]words, test string) string {
	for _, t := range tests {
		line := cmp.Or(said[t].message, said[t].wrong, said[t].test, said[t].other)
		if line == "" {
			continue
		}
		if sub, is := strings.CutPrefix(t, test+"/"); is {
			line = sub + ": " + line
		}
		return line
	}
	return ""
}

// words are the last messages of a test, from its own file and from others: a failure is mostly said in
// the first, and what clean-up says comes later from the second.
type words struct {
	test, other string
	// wrong and message are what the first failed assertion of testify's found and what it was to say
	// then. Tests go on after those: what they say last has little to do with it.
	wrong, message string
	asserted       int // how many began
}

var (
	// place begins a message of a test: the file and line that said it.
	place = regexp.MustCompile(`^\s*(\w+)\.go:\d+: (.*)`)
	// part is a line of a failed assertion.
	part = regexp.MustCompile(`^\s+\t(Error Trace|Error|Messages):\s*(.*)`)
)

// and takes a line of output into account.
func (w words) and(line string) words {
	line = strings.TrimRight(line, "\n")
	if m := part.FindStringSubmatch(line); m != nil {
		return w.assertion(m[1], short(m[2]))
	}
	m := place.FindStringSubmatch(line)
	if m == nil {
		return w
	}
	switch text := short(m[2]); {
	case text == "": // an assertion follows
	case strings.HasSuffix(m[1], "_test"):
		w.test = text
	default:
		w.other = text
	}
	return w
}

// assertion takes a part of a failed assertion into account.
func (w words) assertion(name, text string) words {
	switch {
	case name == "Error Trace":
		w.asserted++
	case w.asserted > 1:
	case name == "Error":
		w.wrong = text
	default:
		w.message = text
	}
	return w
}

// short is a text that fits into a line.
func short(text string) string {
	const most = 300
	text = strings.TrimSpace(text)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " …"
	}
	return text
}

// panicked finds why a program ended early.
func panicked(output string) string {
	for line := range strings.SplitSeq(output, "\n") {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
