package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/api/equality"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// defaulter fills in what a manifest leaves out, and who wrote it.
type defaulter struct{ settings *settings.Store }

func (d defaulter) handle(ctx context.Context, req ctrladmission.Request) ctrladmission.Response {
	r, known, err := read(ctx, req, d.settings.Current())
	if err != nil || !known || r.now == nil {
		// An object that does not decode is refused by its schema, which names the field.
		return ctrladmission.Allowed("")
	}
	restoreTemplate(r)
	r.now.SetDefaults(r.ctx)
	after, err := encode(r.now, req.Object.Raw)
	if err != nil {
		return ctrladmission.Errored(http.StatusInternalServerError, err)
	}
	return ctrladmission.PatchResponseFromRaw(req.Object.Raw, after)
}

// restoreTemplate takes the stored template for one that only leaves out what was filled in before.
//
// A template that names its revision must not change under that name, and upstream fills in nothing
// then. kubectl sends lists as the manifest has them, so the same manifest applied twice would be
// refused for the defaults it does not mention.
func restoreTemplate(r review) {
	now, old := template(r.now), template(r.old)
	if now == nil || old == nil || now.Name == "" || now.Name != old.Name {
		return
	}
	whole := now.DeepCopy()
	whole.SetDefaults(apis.WithinCreate(r.ctx))
	if equality.Semantic.DeepEqual(whole, old) {
		*now = *old.DeepCopy()
	}
}

// template is what an object makes revisions from, nil if it makes none.
func template(r resource) *servingv1.RevisionTemplateSpec {
	switch o := r.(type) {
	case *servingv1.Service:
		return &o.Spec.Template
	case *servingv1.Configuration:
		return &o.Spec.Template
	}
	return nil
}

// encode writes the object without the empty fields that its type adds to what was sent.
func encode(r resource, sent []byte) ([]byte, error) {
	out, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the completed object: %w", err)
	}
	var after, before map[string]any
	if err := unmarshal(out, &after); err != nil {
		return nil, err
	}
	if err := unmarshal(sent, &before); err != nil {
		return nil, err
	}
	prune(after, before)
	if out, err = json.Marshal(after); err != nil {
		return nil, fmt.Errorf("encoding the completed object: %w", err)
	}
	return out, nil
}

func unmarshal(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("decoding for comparison: %w", err)
	}
	return nil
}

// prune drops from after the nulls and empty objects that before does not have.
func prune(after, before map[string]any) {
	for key, value := range after {
		had, ok := before[key]
		child, isObject := value.(map[string]any)
		if isObject {
			below, _ := had.(map[string]any)
			prune(child, below)
		}
		if list, isList := value.([]any); isList {
			pruneList(list, had)
		}
		if !ok && (value == nil || isObject && len(child) == 0) {
			delete(after, key)
		}
	}
}

func pruneList(after []any, had any) {
	before, _ := had.([]any)
	for i, value := range after {
		child, ok := value.(map[string]any)
		if !ok {
			continue
		}
		var below map[string]any
		if i < len(before) {
			below, _ = before[i].(map[string]any)
		}
		prune(child, below)
	}
}
