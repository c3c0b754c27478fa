package scale

import "time"

// Defaults are the cluster-wide settings (config-autoscaler) behind every Spec.
type Defaults struct {
	Class                                     Class
	ScaleToZero, AllowZeroInitialScale        bool
	TargetConcurrency, ConcurrencyUtilization float64 // utilisations are fractions
	TargetRPS, OtherUtilization               float64
	MaxScaleUpRate, MaxScaleDownRate          float64
	StableWindow                              time.Duration
	PanicWindowPercentage                     float64
	PanicThresholdPercentage                  float64
	TargetBurstCapacity                       float64
	Grace, Retention, ScaleDownDelay          time.Duration
	InitialScale, MinScale, MaxScale          int32
	ProgressDeadline                          time.Duration // from config-deployment
}

// Standard returns Knative's built-in defaults, which hold while config-autoscaler says nothing.
func Standard() Defaults {
	return Defaults{
		Class:                    KPA,
		ScaleToZero:              true,
		TargetConcurrency:        100,
		ConcurrencyUtilization:   0.7,
		TargetRPS:                200,
		OtherUtilization:         0.7,
		MaxScaleUpRate:           1000,
		MaxScaleDownRate:         2,
		StableWindow:             time.Minute,
		PanicWindowPercentage:    10,
		PanicThresholdPercentage: 200,
		TargetBurstCapacity:      211,
		Grace:                    30 * time.Second,
		InitialScale:             1,
		ProgressDeadline:         10 * time.Minute,
	}
}
