package metricsapi

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// fromText takes a selector of a metric in Prometheus's text format and returns the first that has all
// the labels. As upstream has it, every operator stands for equality, and a label that is absent
// differs from an empty one.
func fromText(body []byte, location string) (float64, error) {
	name, labels, err := readSelector(location)
	if err != nil {
		return 0, fmt.Errorf("reading valueLocation %q: %w", location, err)
	}
	body = bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	if len(body) > 0 && !bytes.HasSuffix(body, []byte("\n")) {
		body = append(body, '\n')
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("prometheus format parsing error: %w", err)
	}
	family, ok := families[name]
	if !ok {
		return 0, fmt.Errorf("metric '%s' not found", name)
	}
	for _, metric := range family.GetMetric() {
		if !has(metric, labels) {
			continue
		}
		switch {
		case metric.GetUntyped() != nil:
			return metric.GetUntyped().GetValue(), nil
		case metric.GetCounter() != nil:
			return metric.GetCounter().GetValue(), nil
		case metric.GetGauge() != nil:
			return metric.GetGauge().GetValue(), nil
		}
	}
	return 0, fmt.Errorf("value %s not found", location)
}

type label struct{ name, value string }

func has(metric *dto.Metric, labels []label) bool {
	have := map[string]string{}
	for _, l := range metric.GetLabel() {
		have[l.GetName()] = l.GetValue()
	}
	for _, l := range labels {
		if value, ok := have[l.name]; !ok || value != l.value {
			return false
		}
	}
	return true
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)
	operator   = regexp.MustCompile(`^(=~|!~|!=|=)`)
)

// readSelector reads name{label="value", …}. The name may stand within the braces, too, as a string
// or as the label __name__.
func readSelector(s string) (name string, labels []label, err error) {
	s = strings.TrimSpace(s)
	outside := metricName.FindString(s)
	name, s = outside, strings.TrimSpace(s[len(outside):])
	if name != "" && s == "" {
		return name, nil, nil
	}
	s, ok := strings.CutPrefix(s, "{")
	if !ok {
		return "", nil, errors.New("there is no name of a metric")
	}
	for s = strings.TrimSpace(s); !strings.HasPrefix(s, "}"); {
		var one label
		if one, s, err = readLabel(s); err != nil {
			return "", nil, err
		}
		switch {
		case one.name != "" && one.name != model.MetricNameLabel:
			labels = append(labels, one)
		case outside == "":
			name = one.value
		}
		if rest, more := strings.CutPrefix(s, ","); more {
			s = strings.TrimSpace(rest)
		} else if !strings.HasPrefix(s, "}") {
			return "", nil, errors.New("there is neither , nor } after a label")
		}
	}
	if s != "}" {
		return "", nil, errors.New("something follows }")
	}
	return name, labels, nil
}

// readLabel reads a label with its value, or the metric's name, which is returned as a value.
func readLabel(s string) (l label, rest string, err error) {
	if quoted(s) {
		if l.name, s, err = unquote(s); err != nil {
			return l, "", err
		}
		if s = strings.TrimSpace(s); strings.HasPrefix(s, ",") || strings.HasPrefix(s, "}") {
			return label{value: l.name}, s, nil
		}
	} else {
		l.name = labelName.FindString(s)
		s = strings.TrimSpace(s[len(l.name):])
	}
	compare := operator.FindString(s)
	if l.name == "" || compare == "" {
		return l, "", errors.New("there is no label with an operator")
	}
	if s = strings.TrimSpace(s[len(compare):]); !quoted(s) {
		return l, "", fmt.Errorf("label %s has no string as value", l.name)
	}
	l.value, s, err = unquote(s)
	return l, strings.TrimSpace(s), err
}

func quoted(s string) bool { return s != "" && strings.ContainsRune("\"'`", rune(s[0])) }

// unquote returns the string that s begins with, and what follows it.
func unquote(s string) (value, rest string, err error) {
	quote, s := s[0], s[1:]
	if quote == '`' {
		value, rest, ok := strings.Cut(s, "`")
		if !ok {
			return "", "", errors.New("a string has no end")
		}
		return value, rest, nil
	}
	var b strings.Builder
	for s != "" && s[0] != quote && s[0] != '\n' {
		r, wide, tail, err := strconv.UnquoteChar(s, quote)
		if err != nil {
			return "", "", fmt.Errorf("a string has a wrong escape: %w", err)
		}
		if wide {
			b.WriteRune(r)
		} else {
			b.WriteByte(byte(r))
		}
		s = tail
	}
	if s == "" || s[0] != quote {
		return "", "", errors.New("a string has no end")
	}
	return b.String(), s[1:], nil
}
