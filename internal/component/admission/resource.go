package admission

import (
	"context"
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// resource is an object of upstream's that completes and checks itself.
type resource interface {
	apis.Defaultable
	apis.Validatable
}

// resources lists the kinds admission knows, by their names in a URL.
var resources = map[string]func() resource{
	"services":       func() resource { return &servingv1.Service{} },
	"configurations": func() resource { return &servingv1.Configuration{} },
	"revisions":      func() resource { return &servingv1.Revision{} },
	"routes":         func() resource { return &servingv1.Route{} },
	"domainmappings": func() resource { return &servingv1beta1.DomainMapping{} },
}

// review is one request, decoded.
type review struct {
	ctx      context.Context // what upstream's checks read beside the object
	now, old resource        // old is nil on creation; now is nil on deletion
}

// read decodes a request for the kinds of this package; known is false for others.
func read(ctx context.Context, req ctrladmission.Request, s *settings.Settings) (r review, known bool, err error) {
	build, known := resources[req.Resource.Resource]
	if !known {
		return r, false, nil
	}
	if r.now, err = decode(req.Object.Raw, build); err != nil {
		return r, true, fmt.Errorf("decoding the object: %w", err)
	}
	if r.old, err = decode(req.OldObject.Raw, build); err != nil {
		return r, true, fmt.Errorf("decoding the previous object: %w", err)
	}
	ctx = apis.WithUserInfo(s.ToContext(ctx), &req.UserInfo)
	switch req.Operation {
	case admissionv1.Create:
		ctx = apis.WithinCreate(ctx)
	case admissionv1.Update:
		ctx = apis.WithinUpdate(ctx, r.old)
		if req.SubResource != "" {
			ctx = apis.WithinSubResourceUpdate(ctx, r.old, req.SubResource)
		}
	case admissionv1.Delete:
		ctx = apis.WithinDelete(ctx)
	case admissionv1.Connect:
	}
	if req.DryRun != nil && *req.DryRun {
		ctx = apis.WithDryRun(ctx)
	}
	r.ctx = ctx
	return r, true, nil
}

func decode(raw []byte, build func() resource) (resource, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	r := build()
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, err
	}
	return r, nil
}
