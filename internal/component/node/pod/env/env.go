// Package env builds a container's environment the way Kubernetes defines it.
//
// Order and precedence are the kubelet's: the image's variables, then service links, envFrom and
// env, each overriding what came before; $(NAME) refers to what is already known at that point.
package env

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

// ErrConfig marks errors that are the pod's or its configuration's fault: the container waits with
// CreateContainerConfigError until the missing object appears.
var ErrConfig = errors.New("container configuration")

// Objects reads the config maps and secrets a pod refers to.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Source is what variables can come from.
type Source struct {
	Pod         *corev1.Pod
	Facts       Facts
	Objects     Objects
	Services    []*corev1.Service // of the pod's namespace and the default namespace's "kubernetes"
	Allocatable corev1.ResourceList
}

// Result is a container's environment.
type Result struct {
	Vars    []string // NAME=value, in the order of first definition
	Skipped []string // keys of envFrom sources that cannot be variable names
	values  map[string]string
}

// Expand replaces $(NAME) in text by the environment's values, for command, args and subPathExpr.
func (r *Result) Expand(text string) string {
	out, _ := expand(text, r.lookup)
	return out
}

// ExpandAll is like Expand and names the first variable that is not known.
func (r *Result) ExpandAll(text string) (string, error) {
	out, missing := expand(text, r.lookup)
	if missing != "" {
		return "", fmt.Errorf("%w: missing value for %q", ErrConfig, missing)
	}
	return out, nil
}

func (r *Result) lookup(name string) (string, bool) {
	v, ok := r.values[name]
	return v, ok
}

func (r *Result) set(name, value string) {
	if r.values == nil {
		r.values = map[string]string{}
	}
	pair := name + "=" + value
	if _, known := r.values[name]; known {
		i := slices.IndexFunc(r.Vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if i >= 0 {
			r.Vars[i] = pair
		}
	} else {
		r.Vars = append(r.Vars, pair)
	}
	r.values[name] = value
}

// Build computes the environment of container c; base are the image's variables.
func (s Source) Build(ctx context.Context, c *corev1.Container, base []string) (*Result, error) {
	links := s.serviceLinks()
	r := &Result{}
	for i := range c.EnvFrom {
		if err := s.fromSource(ctx, &c.EnvFrom[i], r); err != nil {
			return nil, err
		}
	}
	lookup := func(name string) (string, bool) {
		if v, ok := r.lookup(name); ok {
			return v, true
		}
		v, ok := links[name]
		return v, ok
	}
	for i := range c.Env {
		value, ok, err := s.value(ctx, c, &c.Env[i], lookup)
		if err != nil {
			return nil, err
		}
		if ok {
			r.set(c.Env[i].Name, value)
		}
	}
	for _, name := range sortedKeys(links) {
		if _, ok := r.lookup(name); !ok {
			r.set(name, links[name])
		}
	}
	// The image's variables stay out of values: $(NAME) never refers to them.
	r.Vars = merge(base, r)
	return r, nil
}

// merge puts the image's variables first, without those the pod overrides.
func merge(base []string, r *Result) []string {
	out := make([]string, 0, len(base)+len(r.Vars))
	for _, pair := range base {
		name, _, _ := strings.Cut(pair, "=")
		if _, ok := r.lookup(name); !ok {
			out = append(out, pair)
		}
	}
	return append(out, r.Vars...)
}

func (s Source) fromSource(ctx context.Context, from *corev1.EnvFromSource, r *Result) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := s.Objects.ConfigMap(ctx, s.Pod.Namespace, from.ConfigMapRef.Name)
		if skip, err := missing(err, from.ConfigMapRef.Optional); skip || err != nil {
			return err
		}
		data = cm.Data
	case from.SecretRef != nil:
		secret, err := s.Objects.Secret(ctx, s.Pod.Namespace, from.SecretRef.Name)
		if skip, err := missing(err, from.SecretRef.Optional); skip || err != nil {
			return err
		}
		for k, v := range secret.Data {
			data[k] = string(v)
		}
	}
	for _, key := range sortedKeys(data) {
		name := from.Prefix + key
		if len(validation.IsRelaxedEnvVarName(name)) > 0 {
			r.Skipped = append(r.Skipped, name)
			continue
		}
		r.set(name, data[key])
	}
	return nil
}

// value resolves one variable; ok is false where an optional reference leads nowhere.
func (s Source) value(ctx context.Context, c *corev1.Container, v *corev1.EnvVar, lookup func(string) (string, bool)) (string, bool, error) {
	if v.ValueFrom == nil {
		out, _ := expand(v.Value, lookup)
		return out, true, nil
	}
	switch from := v.ValueFrom; {
	case from.FieldRef != nil:
		out, err := s.Facts.Field(s.Pod, from.FieldRef.FieldPath)
		if err != nil {
			return "", false, fmt.Errorf("%w: variable %s: %w", ErrConfig, v.Name, err)
		}
		return out, true, nil
	case from.ResourceFieldRef != nil:
		out, err := ResourceField(s.Pod, c, from.ResourceFieldRef, s.Allocatable)
		if err != nil {
			return "", false, fmt.Errorf("%w: variable %s: %w", ErrConfig, v.Name, err)
		}
		return out, true, nil
	case from.ConfigMapKeyRef != nil:
		return s.configMapKey(ctx, from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return s.secretKey(ctx, from.SecretKeyRef)
	default:
		return "", false, fmt.Errorf("%w: variable %s: this node knows no such source", ErrConfig, v.Name)
	}
}

func (s Source) configMapKey(ctx context.Context, ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	cm, err := s.Objects.ConfigMap(ctx, s.Pod.Namespace, ref.Name)
	if skip, err := missing(err, ref.Optional); skip || err != nil {
		return "", false, err
	}
	if value, ok := cm.Data[ref.Key]; ok {
		return value, true, nil
	}
	if optional(ref.Optional) {
		return "", false, nil
	}
	return "", false, fmt.Errorf("%w: couldn't find key %s in ConfigMap %s/%s", ErrConfig, ref.Key, s.Pod.Namespace, ref.Name)
}

func (s Source) secretKey(ctx context.Context, ref *corev1.SecretKeySelector) (string, bool, error) {
	secret, err := s.Objects.Secret(ctx, s.Pod.Namespace, ref.Name)
	if skip, err := missing(err, ref.Optional); skip || err != nil {
		return "", false, err
	}
	if value, ok := secret.Data[ref.Key]; ok {
		return string(value), true, nil
	}
	if optional(ref.Optional) {
		return "", false, nil
	}
	return "", false, fmt.Errorf("%w: couldn't find key %s in Secret %s/%s", ErrConfig, ref.Key, s.Pod.Namespace, ref.Name)
}

// missing says whether an absent object may be passed over.
func missing(err error, opt *bool) (skip bool, _ error) {
	switch {
	case err == nil:
		return false, nil
	case apierrors.IsNotFound(err) && optional(opt):
		return true, nil
	default:
		return false, fmt.Errorf("%w: %w", ErrConfig, err)
	}
}

func optional(b *bool) bool { return b != nil && *b }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// expand replaces $(NAME); $$ is a plain $, unknown names stay as they are. It returns the first
// unknown name.
func expand(text string, lookup func(string) (string, bool)) (out, unknown string) {
	if !strings.Contains(text, "$") {
		return text, ""
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := text[i+2 : i+2+end]
			if value, ok := lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
				if unknown == "" {
					unknown = name
				}
			}
			i += end + 2
		default:
			b.WriteByte('$')
		}
	}
	return b.String(), unknown
}
