package kubernetes

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Formats and types of values. Which type goes with what in which format is upstream's.
const (
	number   = "number"
	inJSON   = "json"
	inYAML   = "yaml"
	integer  = "int64"
	quantity = "quantity"
)

// errType says what was found where a number should be.
type errType string

func (e errType) Error() string {
	return fmt.Sprintf("valueLocation must point to value of type number or a string representing a Quantity, got: '%s'", string(e))
}

// value reads what stands under the key.
func (p *parameters) value(text string) (float64, error) {
	switch p.Format {
	case inJSON:
		return p.json(text)
	case inYAML:
		return p.yaml(text)
	default:
		return p.plain(text)
	}
}

// plain reads a number and ignores what comes after it: "7 jobs" is 7.
func (p *parameters) plain(text string) (value float64, err error) {
	switch p.Type {
	case integer:
		var n int64
		_, err = fmt.Sscanf(text, "%d", &n)
		value = float64(n)
	case quantity:
		return amount(text)
	default:
		_, err = fmt.Sscanf(text, "%f", &value)
	}
	if err != nil {
		return 0, fmt.Errorf("parsing value as %s: %w", p.Type, err)
	}
	return value, nil
}

func (p *parameters) json(text string) (float64, error) {
	found := gjson.Get(text, p.Location)
	switch {
	case !found.Exists():
		return 0, p.missing()
	case found.Type == gjson.Number && p.Type == integer:
		return float64(found.Int()), nil
	case found.Type == gjson.Number:
		return found.Float(), nil
	case found.Type == gjson.String && p.Type != integer:
		return amount(found.String())
	default:
		return 0, errType(found.Type.String())
	}
}

func (p *parameters) yaml(text string) (float64, error) {
	var document map[string]any
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return 0, fmt.Errorf("parsing YAML: %w", err)
	}
	found, ok := at(document, p.Location)
	if !ok {
		return 0, p.missing()
	}
	switch v := found.(type) {
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case float64:
		return v, nil
	case string:
		if p.Type == quantity {
			return amount(v)
		}
		var value float64
		if _, err := fmt.Sscanf(v, "%f", &value); err != nil {
			return 0, errType(v)
		}
		return value, nil
	default:
		return 0, errType(fmt.Sprint(v))
	}
}

func (p *parameters) missing() error {
	return fmt.Errorf("path %s not found in %s", p.Location, p.Format)
}

// at follows a path of keys, those of lists being numbers, to the first thing that has no keys. What
// of the path is left then is ignored.
func at(document map[string]any, path string) (found any, ok bool) {
	var current any = document
	for key := range strings.SplitSeq(path, ".") {
		switch keyed := current.(type) {
		case map[string]any:
			current, ok = keyed[key]
		case map[any]any:
			current, ok = lookup(keyed, key)
		case []any:
			n, err := strconv.Atoi(key)
			if ok = err == nil && strconv.Itoa(n) == key && n >= 0 && n < len(keyed); ok {
				current = keyed[n]
			}
		default:
			return current, true
		}
		if !ok {
			return nil, false
		}
	}
	switch current.(type) {
	case map[string]any, map[any]any, []any:
		return nil, false
	}
	return current, true
}

// lookup finds what has a key that reads like that.
func lookup(keyed map[any]any, key string) (found any, ok bool) {
	for k, v := range keyed {
		if fmt.Sprint(k) == key {
			return v, true
		}
	}
	return nil, false
}

func amount(text string) (float64, error) {
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("parsing value as quantity: %w", err)
	}
	return q.AsApproximateFloat64(), nil
}
