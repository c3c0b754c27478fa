// Package ledger keeps the last result of every test function of upstream's suites.
package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// An Entry is the last result of one test function.
type Entry struct {
	Test   string         `json:"test"` // suite/TestFunction
	Result outcome.Result `json:"result"`
	Reason string         `json:"reason"`
}

// Read reads a ledger; one that is not there is empty.
func Read(path string) ([]Entry, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading ledger: %w", err)
	}
	var entries []Entry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("reading ledger %s: %w", path, err)
	}
	return entries, nil
}

// Merge puts new entries over old ones, keeps what else there was, and drops tests that are no longer
// known. A known test without an entry did not run, which is a failure.
func Merge(old, fresh []Entry, known []string) []Entry {
	last := map[string]Entry{}
	for _, e := range slices.Concat(old, fresh) {
		last[e.Test] = e
	}
	merged := make([]Entry, 0, len(known))
	for _, test := range known {
		e, found := last[test]
		if !found {
			e = Entry{Test: test, Result: outcome.Fail, Reason: "has not run"}
		}
		merged = append(merged, e)
	}
	return merged
}

// Sort orders entries by the names of their tests.
func Sort(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Test, b.Test) })
}

// Write replaces a ledger at once, one line an entry so that changes can be read.
func Write(path string, entries []Entry) error {
	var text bytes.Buffer
	line := json.NewEncoder(&text)
	line.SetEscapeHTML(false)
	text.WriteString("[\n")
	for i, e := range entries {
		if i > 0 {
			text.Truncate(text.Len() - 1) // the end of the line that the encoder wrote
			text.WriteString(",\n")
		}
		text.WriteString("  ")
		if err := line.Encode(e); err != nil {
			return fmt.Errorf("writing ledger: %w", err)
		}
	}
	text.WriteString("]\n")
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing ledger: %w", err)
	}
	_, err = file.Write(text.Bytes())
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing ledger: %w", err)
	}
	return nil
}
