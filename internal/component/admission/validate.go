package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// validator refuses what would fail later.
type validator struct {
	settings *settings.Store
	pods     pods
	objects  scaledObjects
}

func (v validator) handle(ctx context.Context, req ctrladmission.Request) ctrladmission.Response {
	s := v.settings.Current()
	r, known, err := read(ctx, req, s)
	switch {
	case err != nil:
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("decoding request failed: %w", err))
	case !known || r.now == nil:
		return ctrladmission.Allowed("")
	}
	problems := r.now.Validate(r.ctx)
	warnings := append(warningsOf(problems), idleAnnotations(r)...)
	if errs := problems.Filter(apis.ErrorLevel); errs != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation failed: %w", errs)).WithWarnings(warnings...)
	}
	if err := unsupported(r.now); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation failed: %w", err)).WithWarnings(warnings...)
	}
	if errs := inert(r); errs != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation failed: %w", errs)).WithWarnings(warnings...)
	}
	more, err := v.objects.checkAnnotation(ctx, r)
	warnings = append(warnings, more...)
	if err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation failed: %w", err)).WithWarnings(warnings...)
	}
	if err := v.pods.check(r, req.Namespace, s); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation callback failed: %w", err)).WithWarnings(warnings...)
	}
	return ctrladmission.Allowed("").WithWarnings(warnings...)
}

func warningsOf(problems *apis.FieldError) []string {
	var out []string
	if w := problems.Filter(apis.WarningLevel); w != nil {
		for _, one := range w.WrappedErrors() {
			out = append(out, one.Error())
		}
	}
	return out
}

// checkSettings refuses a ConfigMap that would not parse.
func checkSettings(ctx context.Context, req ctrladmission.Request) ctrladmission.Response {
	if len(req.Object.Raw) == 0 {
		return ctrladmission.Allowed("")
	}
	var cm corev1.ConfigMap
	if err := json.Unmarshal(req.Object.Raw, &cm); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("decoding request failed: %w", err))
	}
	if err := settings.Check(ctx, &cm); err != nil {
		return ctrladmission.Errored(http.StatusBadRequest, fmt.Errorf("validation failed: %w", err))
	}
	return ctrladmission.Allowed("")
}
