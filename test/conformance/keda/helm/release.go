package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/template"
)

// charts are templates by the charts' names; some have one for each of several architectures.
//
//go:embed chart
var charts embed.FS

// doer runs kubectl and gives what it printed.
type doer func(ctx context.Context, stdin string, args ...string) (string, error)

func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// release is an installed chart.
type release struct {
	command

	do doer
}

// Name and Namespace are for templates.
func (r release) Name() string      { return r.name }
func (r release) Namespace() string { return r.namespace }

// Value is what --set gave, or something else.
func (r release) Value(key, otherwise string) string {
	if value, there := r.values[key]; there {
		return value
	}
	return otherwise
}

// Count lists the first numbers of a value.
func (r release) Count(key, otherwise string) ([]int, error) {
	n, err := strconv.Atoi(r.Value(key, otherwise))
	if err != nil {
		return nil, fmt.Errorf("reading value %s: %w", key, err)
	}
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	return numbers, nil
}

// file is the template: Redis has one for each architecture, NATS one for each generation of its chart.
func (r release) file() string {
	file := r.chart
	switch {
	case r.chart == "redis":
		file += "-" + r.Value("architecture", "standalone")
	case r.chart == "nats" && strings.HasPrefix(r.version, "0."):
		file += "-old"
	}
	return file + ".yaml"
}

// label marks what belongs to a release.
func (r release) label() string { return "app.kubernetes.io/instance=" + r.name }

func (r release) render() (string, error) {
	t, err := template.ParseFS(charts, "chart/"+r.file())
	if err != nil {
		return "", fmt.Errorf("finding chart %s: %w", r.chart, err)
	}
	var text strings.Builder
	if err := t.Option("missingkey=error").Execute(&text, r); err != nil {
		return "", fmt.Errorf("rendering chart %s: %w", r.chart, err)
	}
	return text.String(), nil
}

func (r release) install(ctx context.Context) error {
	manifest, err := r.render()
	if err != nil {
		return err
	}
	if _, err := r.do(ctx, manifest, "apply", "--namespace", r.namespace, "-f", "-"); err != nil {
		return err
	}
	if !r.wait {
		return nil
	}
	sets, err := r.do(ctx, "", "get", "statefulset", "--namespace", r.namespace, "-l", r.label(), "-o", "name")
	if err != nil {
		return err
	}
	for set := range strings.FieldsSeq(sets) {
		if _, err := r.do(ctx, "", "rollout", "status", set, "--namespace", r.namespace, "--timeout", r.timeout); err != nil {
			return err
		}
	}
	return nil
}

func (r release) remove(ctx context.Context) error {
	_, err := r.do(ctx, "", "delete", "statefulset,service,configmap,secret,pod", "--namespace", r.namespace, "-l", r.label(),
		"--ignore-not-found", "--wait="+strconv.FormatBool(r.wait))
	return err
}
