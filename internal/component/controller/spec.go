package controller

import (
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// ScaleSpec reads how a Revision wants to be scaled.
func ScaleSpec(rev *servingv1.Revision, s *settings.Settings) (scale.Spec, error) {
	spec, err := scale.Parse(rev.Annotations, rev.Spec.GetContainerConcurrency(), scaleDefaults(s))
	spec.Service, spec.Configuration = rev.Labels[serving.ServiceLabelKey], rev.Labels[serving.ConfigurationLabelKey]
	return spec, err
}

// scaleDefaults puts the cluster's settings in the scaler's words; percentages become fractions.
func scaleDefaults(s *settings.Settings) scale.Defaults {
	a := s.Autoscaler
	return scale.Defaults{
		Class:                    scale.Class(a.PodAutoscalerClass),
		ScaleToZero:              a.EnableScaleToZero,
		AllowZeroInitialScale:    a.AllowZeroInitialScale,
		TargetConcurrency:        a.ContainerConcurrencyTargetDefault,
		ConcurrencyUtilization:   a.ContainerConcurrencyTargetFraction,
		TargetRPS:                a.RPSTargetDefault,
		OtherUtilization:         a.TargetUtilization,
		MaxScaleUpRate:           a.MaxScaleUpRate,
		MaxScaleDownRate:         a.MaxScaleDownRate,
		StableWindow:             a.StableWindow,
		PanicWindowPercentage:    a.PanicWindowPercentage,
		PanicThresholdPercentage: a.PanicThresholdPercentage,
		TargetBurstCapacity:      a.TargetBurstCapacity,
		Grace:                    a.ScaleToZeroGracePeriod,
		Retention:                a.ScaleToZeroPodRetentionPeriod,
		ScaleDownDelay:           a.ScaleDownDelay,
		InitialScale:             a.InitialScale,
		MinScale:                 a.MinScale,
		MaxScale:                 a.MaxScale,
		ProgressDeadline:         s.Deployment.ProgressDeadline,
	}
}
