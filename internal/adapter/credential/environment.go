package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// container finds a container of the target by its name; the first for none.
func container(pod *corev1.PodTemplateSpec, name string) (*corev1.Container, error) {
	all := pod.Spec.Containers
	if len(all) == 0 {
		return nil, errors.New("target object doesn't have containers")
	}
	if name == "" {
		return &all[0], nil
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("couldn't find container with name %s on Target object", name)
}

// environment is that of a container of the target, as far as it is known before there is a pod:
// fieldRef and resourceFieldRef are left out.
func (x *resolution) environment(ctx context.Context, name string) (map[string]string, error) {
	c, err := container(x.q.Pod, name)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for i := range c.EnvFrom {
		if err := x.source(ctx, &c.EnvFrom[i], env); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		e := &c.Env[i]
		if e.ValueFrom == nil || e.Value != "" {
			env[e.Name] = expand(e.Value, env)
			continue
		}
		value, known, err := x.variable(ctx, e.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("resolving variable %s of container %s: %w", e.Name, c.Name, err)
		}
		if known {
			env[e.Name] = value
		}
	}
	return env, nil
}

// secretsOpen tells whether Secrets of the target's namespace may be read.
func (x *resolution) secretsOpen() bool {
	return !x.r.options.RestrictSecretAccess || x.q.Namespace == x.r.options.ClusterObjectNamespace
}

// source adds a whole ConfigMap or Secret to env.
func (x *resolution) source(ctx context.Context, from *corev1.EnvFromSource, env map[string]string) error {
	switch {
	case from.ConfigMapRef != nil:
		key := object.ConfigMaps.Key(x.q.Namespace, from.ConfigMapRef.Name)
		o, err := object.ConfigMaps.Get(ctx, x.r.objects, key.Namespace, key.Name)
		if err != nil {
			return unlessOptional(err, key, from.ConfigMapRef.Optional)
		}
		for name, value := range o.Data {
			env[from.Prefix+name] = value
		}
	case from.SecretRef != nil && x.secretsOpen():
		key := object.Secrets.Key(x.q.Namespace, from.SecretRef.Name)
		o, err := object.Secrets.Get(ctx, x.r.objects, key.Namespace, key.Name)
		if err != nil {
			return unlessOptional(err, key, from.SecretRef.Optional)
		}
		for name, value := range o.Data {
			env[from.Prefix+name] = string(value)
		}
	}
	return nil
}

// variable is the value of one that refers to another object; a key that is not there is empty.
func (x *resolution) variable(ctx context.Context, from *corev1.EnvVarSource) (value string, known bool, err error) {
	switch {
	case from.SecretKeyRef != nil && x.secretsOpen():
		ref := from.SecretKeyRef
		key := object.Secrets.Key(x.q.Namespace, ref.Name)
		o, err := object.Secrets.Get(ctx, x.r.objects, key.Namespace, key.Name)
		if err != nil {
			return "", false, unlessOptional(err, key, ref.Optional)
		}
		return string(o.Data[ref.Key]), true, nil
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		key := object.ConfigMaps.Key(x.q.Namespace, ref.Name)
		o, err := object.ConfigMaps.Get(ctx, x.r.objects, key.Namespace, key.Name)
		if err != nil {
			return "", false, unlessOptional(err, key, ref.Optional)
		}
		return o.Data[ref.Key], true, nil
	}
	return "", false, nil
}

// unlessOptional is the error of an object that could not be read; none if it need not be there.
func unlessOptional(err error, key object.Key, optional *bool) error {
	err = absent(err, key.String()+" does not exist", "create it or mark the reference as optional")
	if _, missing := errors.AsType[*missingError](err); missing && optional != nil && *optional {
		return nil
	}
	return err
}

// expand replaces $(NAME) by what env has; what it does not have stays, and $$ is a dollar sign.
func expand(value string, env map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(value, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteString("$")
			value = after[1:]
		case strings.HasPrefix(after, "(") && closed:
			if have, known := env[name]; known {
				out.WriteString(have)
			} else {
				out.WriteString("$(" + name + ")")
			}
			value = rest
		default:
			out.WriteString("$")
			value = after
		}
	}
}
