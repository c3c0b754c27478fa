// Package settings keeps Knative Serving's ConfigMaps (config-*) parsed, whole and current.
//
// Readers take a Settings value, which never changes; a change of a ConfigMap makes a new one. The
// parsers and their defaults are upstream's, so an empty or missing ConfigMap means what it means
// there. A ConfigMap that does not parse leaves the last good value in force.
package settings

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	netcfg "knative.dev/networking/pkg/config"
	apisconfig "knative.dev/serving/pkg/apis/config"
	asconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/config/autoscalerconfig"
	"knative.dev/serving/pkg/deployment"
	"knative.dev/serving/pkg/gc"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"
)

// Namespace is where the ConfigMaps live, upstream's system namespace.
const Namespace = "knative-serving"

// Settings is one consistent reading of all ConfigMaps. Treat it as read-only.
type Settings struct {
	Autoscaler    *autoscalerconfig.Config
	CertManager   *CertManager
	Defaults      *apisconfig.Defaults
	Deployment    *deployment.Config
	Domain        *domaincfg.Domain
	Features      *apisconfig.Features
	GC            *gc.Config
	Network       *netcfg.Config
	Observability *Observability
}

// ToContext returns ctx with what upstream's defaulting and validation look for in it.
func (s *Settings) ToContext(ctx context.Context) context.Context {
	return apisconfig.ToContext(ctx, &apisconfig.Config{
		Defaults: s.Defaults, Features: s.Features, Autoscaler: s.Autoscaler,
	})
}

// Names lists the ConfigMaps that are read.
func Names() []string {
	out := make([]string, 0, len(parsers))
	for _, p := range parsers {
		out = append(out, p.name)
	}
	return out
}

// Check parses one ConfigMap and tells what is wrong with it; ConfigMaps of other names pass.
func Check(ctx context.Context, cm *corev1.ConfigMap) error {
	for _, p := range parsers {
		if p.name == cm.Name {
			return p.into(ctx, &Settings{}, cm)
		}
	}
	return nil
}

// Parse makes Settings of the ConfigMaps given; a missing one stands for its defaults.
func Parse(ctx context.Context, maps map[string]*corev1.ConfigMap) (*Settings, error) {
	s := &Settings{}
	for _, p := range parsers {
		cm := maps[p.name]
		if cm == nil {
			cm = &corev1.ConfigMap{}
			cm.Name, cm.Namespace = p.name, Namespace
		}
		if err := p.into(ctx, s, cm); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// A parser reads one ConfigMap into its field.
type parser struct {
	name string
	into func(context.Context, *Settings, *corev1.ConfigMap) error
}

var parsers = []parser{
	{asconfig.ConfigName, set(asconfig.NewConfigFromConfigMap, func(s *Settings) **autoscalerconfig.Config { return &s.Autoscaler })},
	{certManagerName, set(parseCertManager, func(s *Settings) **CertManager { return &s.CertManager })},
	{apisconfig.DefaultsConfigName, set(apisconfig.NewDefaultsConfigFromConfigMap, func(s *Settings) **apisconfig.Defaults { return &s.Defaults })},
	{deployment.ConfigName, set(parseDeployment, func(s *Settings) **deployment.Config { return &s.Deployment })},
	{domaincfg.DomainConfigName, set(parseDomain, func(s *Settings) **domaincfg.Domain { return &s.Domain })},
	{apisconfig.FeaturesConfigName, set(apisconfig.NewFeaturesConfigFromConfigMap, func(s *Settings) **apisconfig.Features { return &s.Features })},
	{gc.ConfigName, setWithin(gc.NewConfigFromConfigMapFunc, func(s *Settings) **gc.Config { return &s.GC })},
	{netcfg.ConfigMapName, set(parseNetwork, func(s *Settings) **netcfg.Config { return &s.Network })},
	{observabilityName, set(parseObservability, func(s *Settings) **Observability { return &s.Observability })},
}

// set joins a parser with the field its result goes to.
func set[T any](parse func(*corev1.ConfigMap) (*T, error), field func(*Settings) **T) func(context.Context, *Settings, *corev1.ConfigMap) error {
	return setWithin(func(context.Context) func(*corev1.ConfigMap) (*T, error) { return parse }, field)
}

// setWithin is set for a parser that is made of a context.
func setWithin[T any](parse func(context.Context) func(*corev1.ConfigMap) (*T, error), field func(*Settings) **T) func(context.Context, *Settings, *corev1.ConfigMap) error {
	return func(ctx context.Context, s *Settings, cm *corev1.ConfigMap) error {
		v, err := parse(ctx)(cm)
		if err != nil {
			return fmt.Errorf("parsing ConfigMap %s: %w", cm.Name, err)
		}
		*field(s) = v
		return nil
	}
}
