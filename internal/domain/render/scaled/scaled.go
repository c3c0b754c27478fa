// Package scaled makes the ScaledObject that a Knative Service asks for by an annotation.
package scaled

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"
)

// Annotation holds, as YAML, the triggers that scale a Service together with its requests: a list as in
// spec.triggers of a ScaledObject, or a whole such spec without scaleTargetRef.
const Annotation = "ebb.dev/triggers"

// ErrTarget says that an annotation names a target, which the Service is.
var ErrTarget = errors.New("scaleTargetRef has no place here: it is the Service that is scaled")

// Object makes the ScaledObject of a Service, of its name and owned by it; nil if it asks for none. Errors
// name the field that is wrong.
func Object(s *servingv1.Service) (*kedav1alpha1.ScaledObject, error) {
	text, asked := s.Annotations[Annotation]
	if !asked || strings.TrimSpace(text) == "" {
		return nil, nil
	}
	so := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{
		Namespace: s.Namespace, Name: s.Name,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, servingv1.SchemeGroupVersion.WithKind("Service"))},
	}}
	if err := read(text, &so.Spec); err != nil {
		return nil, err
	}
	so.Spec.ScaleTargetRef = &kedav1alpha1.ScaleTarget{APIVersion: serving.GroupName + "/v1", Kind: "Service", Name: s.Name}
	return so, nil
}

// read takes either form.
func read(text string, into *kedav1alpha1.ScaledObjectSpec) error {
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return fmt.Errorf("it is no YAML: %w", err)
	}
	var triggers []json.RawMessage
	switch {
	case bytes.HasPrefix(data, []byte("[")):
		if err := decode(data, "triggers", &triggers); err != nil {
			return err
		}
	case bytes.HasPrefix(data, []byte("{")):
		if triggers, err = rest(data, into); err != nil {
			return err
		}
	default:
		return errors.New("it is neither a list of triggers nor the spec of a ScaledObject")
	}
	for i, one := range triggers { // each by itself, so that a mistake has a place
		into.Triggers = append(into.Triggers, kedav1alpha1.ScaleTriggers{})
		at := fmt.Sprintf("triggers[%d]", i)
		if err := quoted(one, at); err != nil {
			return err
		}
		if err := decode(one, at, &into.Triggers[i]); err != nil {
			return err
		}
	}
	return nil
}

// rest reads what a spec has beside its triggers, and returns those.
func rest(data []byte, into *kedav1alpha1.ScaledObjectSpec) (triggers []json.RawMessage, err error) {
	var fields map[string]json.RawMessage
	if err := decode(data, "", &fields); err != nil {
		return nil, err
	}
	if _, named := fields["scaleTargetRef"]; named {
		return nil, ErrTarget
	}
	if list, given := fields["triggers"]; given {
		if err := decode(list, "triggers", &triggers); err != nil {
			return nil, err
		}
	}
	delete(fields, "triggers")
	others, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return triggers, decode(others, "", into)
}

// quoted refuses the mistake that is made most: a parameter that is no string.
func quoted(trigger json.RawMessage, at string) error {
	var loose struct {
		Metadata map[string]any `json:"metadata"`
	}
	_ = json.Unmarshal(trigger, &loose) // decode says what is wrong with the rest
	for _, name := range slices.Sorted(maps.Keys(loose.Metadata)) {
		if _, ok := loose.Metadata[name].(string); !ok {
			return fmt.Errorf("%s.metadata.%s: %v is no string; put it in quotes", at, name, loose.Metadata[name])
		}
	}
	return nil
}

// decode reads JSON that has known fields only; at is where it is.
func decode(data []byte, at string, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: a value of type %s has no place there", strings.Trim(at+"."+wrong.Field, "."), wrong.Value)
	}
	what := strings.TrimPrefix(err.Error(), "json: ")
	if at == "" {
		return errors.New(what)
	}
	return fmt.Errorf("%s: %s", at, what)
}
