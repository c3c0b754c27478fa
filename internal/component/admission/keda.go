package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ebb.dev/ebb/internal/adapter/trigger/schema"
)

// kedaKind is one of KEDA's kinds.
type kedaKind struct {
	group, version, plural, webhook string // the webhook's name is upstream's, if it has one, and shows in refusals
	build                           func() client.Object
}

var kedaKinds = []kedaKind{
	{"keda.sh", "v1alpha1", "scaledobjects", "vscaledobject.kb.io", func() client.Object { return &kedav1alpha1.ScaledObject{} }},
	{"keda.sh", "v1alpha1", "scaledjobs", "vscaledjob.kb.io", func() client.Object { return &kedav1alpha1.ScaledJob{} }},
	{"keda.sh", "v1alpha1", "triggerauthentications", "vstriggerauthentication.kb.io", func() client.Object { return &kedav1alpha1.TriggerAuthentication{} }},
	{"keda.sh", "v1alpha1", "clustertriggerauthentications", "vsclustertriggerauthentication.kb.io", func() client.Object { return &kedav1alpha1.ClusterTriggerAuthentication{} }},
	{"eventing.keda.sh", "v1alpha1", "cloudeventsources", "vcloudeventsource.kb.io", func() client.Object { return &kedaeventingv1alpha1.CloudEventSource{} }},
	{"eventing.keda.sh", "v1alpha1", "clustercloudeventsources", "vclustercloudeventsource.kb.io", func() client.Object { return &kedaeventingv1alpha1.ClusterCloudEventSource{} }},
	{"http.keda.sh", "v1alpha1", "httpscaledobjects", "vhttpscaledobject.http.keda.sh", func() client.Object { return &httpv1alpha1.HTTPScaledObject{} }},
	{"http.keda.sh", "v1beta1", "interceptorroutes", "vinterceptorroute.http.keda.sh", func() client.Object { return &httpv1beta1.InterceptorRoute{} }},
}

// kedaValidator refuses KEDA's objects that could not work.
type kedaValidator struct {
	objects  scaledObjects
	triggers triggers
	metrics  *metrics
}

func (v kedaValidator) handle(ctx context.Context, req ctrladmission.Request) ctrladmission.Response {
	now, old, err := readKeda(req)
	switch {
	case err != nil:
		return ctrladmission.Errored(http.StatusBadRequest, err)
	case now == nil, now.GetDeletionTimestamp() != nil, old != nil && unchanged(now, old):
		return ctrladmission.Allowed("")
	}
	warnings, err := v.check(ctx, now, req.DryRun != nil && *req.DryRun)
	v.metrics.count(req, now, err)
	if err != nil {
		return ctrladmission.Denied(err.Error()).WithWarnings(warnings...)
	}
	return ctrladmission.Allowed("").WithWarnings(warnings...)
}

// readKeda decodes a request; now is nil for kinds that are not KEDA's and for deletions.
func readKeda(req ctrladmission.Request) (now, old client.Object, err error) {
	for _, k := range kedaKinds {
		if k.group != req.Resource.Group || k.plural != req.Resource.Resource {
			continue
		}
		if len(req.Object.Raw) > 0 {
			now = k.build()
			if err := json.Unmarshal(req.Object.Raw, now); err != nil {
				return nil, nil, fmt.Errorf("decoding the object: %w", err)
			}
		}
		if len(req.OldObject.Raw) > 0 {
			old = k.build()
			if err := json.Unmarshal(req.OldObject.Raw, old); err != nil {
				return nil, nil, fmt.Errorf("decoding the previous object: %w", err)
			}
		}
	}
	return now, old, nil
}

// unchanged says that an update leaves the specification as it was admitted before: it is no reason
// to judge it anew, by rules or neighbours that may have come since.
func unchanged(now, old client.Object) bool {
	return equality.Semantic.DeepEqual(specOf(now), specOf(old))
}

func specOf(o client.Object) any {
	switch o := o.(type) {
	case *kedav1alpha1.ScaledObject:
		return o.Spec
	case *kedav1alpha1.ScaledJob:
		return o.Spec
	case *kedav1alpha1.TriggerAuthentication:
		return o.Spec
	case *kedav1alpha1.ClusterTriggerAuthentication:
		return o.Spec
	case *kedaeventingv1alpha1.CloudEventSource:
		return o.Spec
	case *kedaeventingv1alpha1.ClusterCloudEventSource:
		return o.Spec
	case *httpv1alpha1.HTTPScaledObject:
		return o.Spec
	case *httpv1beta1.InterceptorRoute:
		return o.Spec
	}
	return nil
}

func (v kedaValidator) check(ctx context.Context, o client.Object, dryRun bool) ([]string, error) {
	switch o := o.(type) {
	case *kedav1alpha1.ScaledObject:
		return v.objects.check(ctx, o, dryRun)
	case *kedav1alpha1.ScaledJob:
		return v.triggers.check(o.Spec.Triggers)
	case *kedav1alpha1.TriggerAuthentication:
		return checkAuthentication(&o.Spec)
	case *kedav1alpha1.ClusterTriggerAuthentication:
		return checkAuthentication(&o.Spec)
	case *kedaeventingv1alpha1.CloudEventSource:
		return o.ValidateUpdate(&kedaeventingv1alpha1.CloudEventSource{}, nil)
	case *kedaeventingv1alpha1.ClusterCloudEventSource:
		return o.ValidateUpdate(&kedaeventingv1alpha1.ClusterCloudEventSource{}, nil)
	case *httpv1alpha1.HTTPScaledObject:
		return nil, checkHTTPScaledObject(&o.Spec).ToAggregate()
	case *httpv1beta1.InterceptorRoute:
		return checkInterceptorRoute(&o.Spec)
	}
	return nil, nil
}

// checkAuthentication applies upstream's checks to the parts they look at: they log what they are
// given, and a token of a vault may be among the rest.
func checkAuthentication(spec *kedav1alpha1.TriggerAuthenticationSpec) ([]string, error) {
	var judged kedav1alpha1.TriggerAuthentication
	judged.Spec.PodIdentity, judged.Spec.OAuth2, judged.Spec.AzureServicePrincipal = spec.PodIdentity, spec.OAuth2, spec.AzureServicePrincipal
	return judged.ValidateUpdate(&kedav1alpha1.TriggerAuthentication{}, nil)
}

// triggers judges the triggers of an object.
type triggers struct{ builtIn func(kind string) bool }

func (t triggers) check(all []kedav1alpha1.ScaleTriggers) (warnings []string, err error) {
	if err := kedav1alpha1.ValidateTriggers(all); err != nil {
		return nil, refused(reasonTriggers, err)
	}
	var errs []error
	for i := range all {
		path := fmt.Sprintf("spec.triggers[%d]", i)
		for _, p := range schema.Check(all[i].Type, all[i].Metadata, nil, nil) {
			at := path + ".type"
			if p.Parameter != "" {
				at = path + ".metadata." + p.Parameter
			}
			if p.Refused {
				errs = append(errs, fmt.Errorf("%s: %s", at, p.Message))
			} else {
				warnings = append(warnings, at+": "+p.Message)
			}
		}
		if schema.Known(all[i].Type) && !t.has(all[i].Type) {
			warnings = append(warnings, fmt.Sprintf("%s.type: triggers of type %q are not built in, so this one scales nothing; a trigger of type \"external\" can ask a scaler of your own instead", path, all[i].Type))
		}
	}
	return warnings, refused(reasonTriggers, errors.Join(errs...))
}

// has says whether triggers of a type work here.
func (t triggers) has(kind string) bool {
	return kind == cpu || kind == memory || t.builtIn == nil || t.builtIn(kind)
}
