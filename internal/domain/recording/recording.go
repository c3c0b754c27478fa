// Package recording reads what triggers said over time, in one of three forms, told apart by how they
// begin:
//
//	time,orders,s1-prometheus          CSV: a column for each trigger, by its name or its metric's
//	2026-11-26T08:00:00Z,120,3.5       a cell without text: as before; "failed": it could not be asked
//
//	{"time": 0, "values": {"orders": 120, "s1-prometheus": null}}    JSON, a line for each time; null: failed
//
//	{"status": "success", "data": {"resultType": "matrix", …         what Prometheus answers for a range, as of
//	                                                                 keda_scaler_metrics_value{scaledObject="…"}
//
// A time is one of RFC 3339 or a number of seconds.
package recording

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Sample is what triggers said at one time, by the name of the trigger or of its metric. Who is not
// mentioned says what it said before.
type Sample struct {
	At     time.Time          `json:"at"`
	Values map[string]float64 `json:"values,omitempty"`
	// Failed names those that could not be asked.
	Failed []string `json:"failed,omitempty"`
}

// failed stands in a cell for a trigger that could not be asked.
const failed = "failed"

// Errors of Parse.
var (
	ErrEmpty = errors.New("there is nothing in it")
	ErrOrder = errors.New("its times do not grow")
)

// Parse reads a recording. Its samples are in the order of their times, none of which is there twice.
func Parse(text []byte) ([]Sample, error) {
	text = bytes.TrimSpace(text)
	var samples []Sample
	var err error
	switch {
	case len(text) == 0:
		return nil, ErrEmpty
	case text[0] != '{':
		samples, err = table(text)
	case isMatrix(text):
		samples, err = matrix(text)
	default:
		samples, err = lines(text)
	}
	if err != nil {
		return nil, err
	}
	if len(samples) == 0 {
		return nil, ErrEmpty
	}
	for i := 1; i < len(samples); i++ {
		if !samples[i].At.After(samples[i-1].At) {
			return nil, fmt.Errorf("sample %d: %w", i+1, ErrOrder)
		}
	}
	return samples, nil
}

// at reads a time.
func at(text string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return since(seconds), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time of RFC 3339 nor a number of seconds", text)
	}
	return t, nil
}

func since(seconds float64) time.Time {
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(math.Round(part*1000))*int64(time.Millisecond)).UTC()
}

// table reads the form with columns.
func table(text []byte) ([]Sample, error) {
	reader := csv.NewReader(bytes.NewReader(text))
	reader.TrimLeadingSpace, reader.Comment = true, '#'
	rows, err := reader.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || len(rows[0]) < 2 || rows[0][0] != "time" {
		return nil, errors.New("the first line is to name the columns, beginning with time")
	}
	out := make([]Sample, 0, len(rows))
	for i, cells := range rows[1:] {
		sample, err := row(rows[0], cells)
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", i+1, err)
		}
		out = append(out, sample)
	}
	return out, nil
}

func row(names, cells []string) (s Sample, err error) {
	if s.At, err = at(cells[0]); err != nil {
		return s, err
	}
	s.Values = map[string]float64{}
	for i, cell := range cells[1:] {
		name := names[i+1]
		switch cell = strings.TrimSpace(cell); cell {
		case "":
		case failed:
			s.Failed = append(s.Failed, name)
		default:
			if s.Values[name], err = strconv.ParseFloat(cell, 64); err != nil {
				return s, fmt.Errorf("%s is %q, which is no number", name, cell)
			}
		}
	}
	return s, nil
}

// lines reads the form with a JSON object for each time.
func lines(text []byte) ([]Sample, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var out []Sample
	for decoder.More() {
		var line struct {
			Time   json.RawMessage     `json:"time"`
			Values map[string]*float64 `json:"values"`
		}
		if err := decoder.Decode(&line); err != nil {
			return nil, fmt.Errorf("sample %d: %w", len(out)+1, err)
		}
		when, err := at(strings.Trim(string(line.Time), `"`))
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", len(out)+1, err)
		}
		s := Sample{At: when, Values: map[string]float64{}}
		for _, name := range slices.Sorted(maps.Keys(line.Values)) {
			if value := line.Values[name]; value != nil {
				s.Values[name] = *value
			} else {
				s.Failed = append(s.Failed, name)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// answer is what Prometheus says to a query.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Type   string `json:"resultType"`
		Result []struct {
			Labels map[string]string `json:"metric"`
			Values [][2]any          `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

func isMatrix(text []byte) bool {
	var a struct {
		Status string `json:"status"`
	}
	return json.Unmarshal(text, &a) == nil && a.Status != ""
}

// matrix reads what Prometheus says of a range: series are called by their label metric, as those of
// keda_scaler_metrics_value are, or by their name.
func matrix(text []byte) ([]Sample, error) {
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("reading Prometheus' answer: %w", err)
	}
	if a.Status != "success" || a.Data.Type != "matrix" {
		return nil, fmt.Errorf("the answer of Prometheus is no range of values: %s %s %s", a.Status, a.Data.Type, a.Error)
	}
	at := map[time.Time]map[string]float64{}
	for _, series := range a.Data.Result {
		name := series.Labels["metric"]
		if name == "" {
			name = series.Labels["__name__"]
		}
		for _, point := range series.Values {
			seconds, isNumber := point[0].(float64)
			text, isText := point[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !isNumber || !isText || err != nil {
				return nil, fmt.Errorf("%s has a value that is none: %v", name, point)
			}
			when := since(seconds)
			if at[when] == nil {
				at[when] = map[string]float64{}
			}
			if _, twice := at[when][name]; twice {
				return nil, fmt.Errorf("there are several series called %q: ask for those of one object only", name)
			}
			at[when][name] = value
		}
	}
	var out []Sample
	for _, when := range slices.SortedFunc(maps.Keys(at), time.Time.Compare) {
		out = append(out, Sample{At: when, Values: at[when]})
	}
	return out, nil
}
