package admission

import (
	"errors"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Reasons for refusals, by the words that KEDA counts them by.
const (
	reasonName        = "name-too-long"
	reasonHPAName     = "hpa-name-too-long"
	reasonReplicas    = "incorrect-replicas"
	reasonFallback    = "incorrect-fallback"
	reasonTriggers    = "incorrect-triggers"
	reasonFormula     = "scaling-modifiers"
	reasonNoFormula   = "scaling-modifiers-fallback"
	reasonTarget      = "other-scaled-object"
	reasonTaken       = "other-scaled-object-hpa"
	reasonHPA         = "other-hpa"
	reasonUnnamedHPA  = "transfer-ownership-missing-hpa-name"
	reasonRequests    = "missing-requests"
	reasonScaleToZero = "scale-to-zero-requirements-not-met"
)

// refusal is an error that is counted by a reason.
type refusal struct {
	error

	reason string
}

// Unwrap lets the error be seen.
func (r refusal) Unwrap() error { return r.error }

// refused gives an error a reason to be counted by.
func refused(reason string, err error) error {
	if err == nil {
		return nil
	}
	return refusal{err, reason}
}

// metrics are KEDA's of its webhooks.
type metrics struct{ judged, errors *prometheus.CounterVec }

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		judged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_webhook_scaled_object_validations_total", Help: "Total number of scaled object validations",
		}, []string{"namespace", "action"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_webhook_scaled_object_validation_errors_total", Help: "Total number of scaled object validating errors",
		}, []string{"namespace", "action", "reason"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.judged, m.errors)
	}
	return m
}

// count notes that an object was judged, and whether it was refused.
func (m *metrics) count(req ctrladmission.Request, o client.Object, err error) {
	action := "create"
	if req.Operation == admissionv1.Update {
		action = "update"
	}
	if _, ok := o.(*kedav1alpha1.ScaledObject); ok {
		m.judged.WithLabelValues(o.GetNamespace(), action).Inc()
	}
	if why, ok := errors.AsType[refusal](err); ok {
		m.errors.WithLabelValues(o.GetNamespace(), action, why.reason).Inc()
	}
}
