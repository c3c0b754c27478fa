package metricsapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// extract finds a number in a body.
type extract func(body []byte, location string) (float64, error)

var formats = map[string]extract{"json": fromJSON, "yaml": fromYAML, "xml": fromXML, "prometheus": fromText}

// fromJSON takes a GJSON path.
func fromJSON(body []byte, location string) (float64, error) {
	switch found := gjson.GetBytes(body, location); found.Type {
	case gjson.String:
		return quantity(found.String(), location)
	case gjson.Number:
		return found.Num, nil
	default:
		return 0, wrong(location, found.Type.String())
	}
}

// fromYAML takes names and indices with dots between them.
func fromYAML(body []byte, location string) (float64, error) {
	var document map[string]any
	if err := yaml.Unmarshal(body, &document); err != nil {
		return 0, err
	}
	found, err := walk(document, location)
	if err != nil {
		return 0, err
	}
	switch v := found.(type) {
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case float64:
		return v, nil
	case string:
		return quantity(v, location)
	default:
		return 0, wrong(location, fmt.Sprintf("%T", v))
	}
}

// walk ends at the first thing that is neither a map nor a list, whatever follows in the path, as
// upstream does.
func walk(in any, path string) (any, error) {
	for key := range strings.SplitSeq(path, ".") {
		next, ok := child(in, key)
		if !ok {
			return nil, missing(key, path)
		}
		switch next.(type) {
		case map[string]any, map[any]any, []any:
			in = next
		default:
			return next, nil
		}
	}
	return nil, fmt.Errorf("path '%s' does not lead to a value", path)
}

func child(in any, key string) (value any, ok bool) {
	switch in := in.(type) {
	case map[string]any:
		value, ok = in[key]
	case map[any]any:
		for k, v := range in {
			if fmt.Sprint(k) == key {
				return v, true
			}
		}
	case []any:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(in) && strconv.Itoa(i) == key {
			return in[i], true
		}
	}
	return value, ok
}

func missing(key, path string) error { return fmt.Errorf("key '%s' not found in path '%s'", key, path) }

func quantity(s, location string) (float64, error) {
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("valueLocation %q points to a string that is not parseable as a Quantity", location)
	}
	return q.AsApproximateFloat64(), nil
}

func wrong(location, found string) error {
	return fmt.Errorf("valueLocation %q must point to a numeric value or a string parseable as a Quantity, got %s", location, found)
}
