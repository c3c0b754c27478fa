package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/build"
	"ebb.dev/ebb/internal/adapter/build/gosource"
	"ebb.dev/ebb/internal/platform/image"
	"ebb.dev/ebb/internal/server"
)

// deployment is what `ebb deploy` was asked for.
type deployment struct {
	*options

	path    string
	name    string
	image   string
	env     []string
	arches  []string
	timeout time.Duration
	noWait  bool
}

func deployCommand(o *options) *cobra.Command {
	d := &deployment{options: o}
	c := &cobra.Command{
		Use:   "deploy [folder]",
		Short: "Build a folder of code and run it as a service; prints the URL",
		Example: `  ebb deploy examples/hello-go
  ebb deploy . --name greeter --env GREETING=Hi
  ebb deploy --image ghcr.io/you/app:v1 --name app`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				d.path = args[0]
			}
			return d.run(c.Context(), c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&d.name, "name", "", "name of the service (default: the folder's name)")
	c.Flags().StringVar(&d.image, "image", "", "run this image instead of building a folder")
	c.Flags().StringArrayVarP(&d.env, "env", "e", nil, "NAME=value for the code; NAME- removes one")
	c.Flags().StringSliceVar(&d.arches, "platform", nil, "build for these instead of this machine, such as linux/amd64,linux/arm64")
	c.Flags().DurationVar(&d.timeout, "timeout", 2*time.Minute, "how long to wait until it is ready")
	c.Flags().BoolVar(&d.noWait, "no-wait", false, "return before it is ready")
	return o.withNamespace(c)
}

func (d *deployment) run(ctx context.Context, out io.Writer) error {
	if err := d.check(); err != nil {
		return err
	}
	status, err := server.ReadStatus(d.folder())
	if err != nil {
		return err
	}
	if status.State != server.StateReady {
		return fmt.Errorf("ebb is %s on %s: start it with `ebb up`", status.State, d.folder())
	}
	s, err := d.connect()
	if err != nil {
		return err
	}
	if d.image == "" {
		if d.image, err = d.build(ctx, out, status.Registry); err != nil {
			return err
		}
	}
	generation, err := d.apply(ctx, s)
	if err != nil {
		return err
	}
	if d.noWait {
		return nil
	}
	url, err := d.await(ctx, s, generation)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, url)
	return nil
}

// check completes and judges the flags before anything is built.
func (d *deployment) check() error {
	if (d.path == "") == (d.image == "") {
		return fmt.Errorf("%w: give a folder to build or --image to run, one of them", errUsage)
	}
	if d.name == "" {
		source := d.path
		if d.image != "" {
			source, _, _ = strings.Cut(d.image, "@")
			source, _, _ = strings.Cut(filepath.Base(source), ":")
		}
		abs, err := filepath.Abs(source)
		if err != nil {
			return fmt.Errorf("resolving %s: %w", source, err)
		}
		d.name = strings.ReplaceAll(strings.ToLower(filepath.Base(abs)), "_", "-")
	}
	if problems := validation.IsDNS1035Label(d.name); len(problems) > 0 {
		return fmt.Errorf("%w: %q cannot name a service: %s; choose one with --name", errUsage, d.name, problems[0])
	}
	for _, pair := range d.env {
		name, _, found := strings.Cut(pair, "=")
		if !found {
			name = strings.TrimSuffix(pair, "-")
		}
		if problems := validation.IsEnvVarName(name); len(problems) > 0 || (!found && name == pair) {
			return fmt.Errorf("%w: --env %q: want NAME=value, or NAME- to remove", errUsage, pair)
		}
	}
	return nil
}

// builtImages is the registry that built images are named by. No host has that name: the local mirror
// answers for it on every installation, whatever port it has there, so manifests stay portable.
const builtImages = "ebb.local"

// build makes the image, pushes it to ebb's own registry and returns its reference by digest.
func (d *deployment) build(ctx context.Context, out io.Writer, registry string) (string, error) {
	_, _ = fmt.Fprintf(out, "building %s …\n", d.path)
	began := time.Now()
	var builder build.Builder = &gosource.Builder{}
	if err := builder.Detect(d.path); err != nil {
		return "", fmt.Errorf("building %s: %w", d.path, err)
	}
	platforms, err := d.platforms()
	if err != nil {
		return "", err
	}
	made, err := builder.Build(ctx, build.Request{Dir: d.path, Name: d.name, Platforms: platforms})
	if err != nil {
		return "", err // it says what was being built
	}
	repository := builtImages + "/" + d.namespace + "/" + d.name
	digest, err := image.Open(registry, slog.New(slog.DiscardHandler)).Push(ctx, registry+"/"+repository, made.Taggable(), nil)
	if err != nil {
		return "", fmt.Errorf("pushing %s: %w", repository, err)
	}
	_, _ = fmt.Fprintf(out, "built %s (%.1f s)\n", repository, time.Since(began).Seconds())
	return repository + "@" + digest.DigestStr(), nil
}

// platforms reads --platform; none means this machine's.
func (d *deployment) platforms() ([]v1.Platform, error) {
	var out []v1.Platform
	for _, text := range d.arches {
		p, err := v1.ParsePlatform(text)
		if err != nil || p.OS == "" || p.Architecture == "" {
			return nil, fmt.Errorf("%w: --platform %q: want os/architecture, such as linux/arm64", errUsage, text)
		}
		out = append(out, *p)
	}
	return out, nil
}

// apply creates the service or updates what the flags say about the one that is there, and returns
// the generation to wait for.
func (d *deployment) apply(ctx context.Context, s *session) (int64, error) {
	key := client.ObjectKey{Namespace: d.namespace, Name: d.name}
	var generation int64
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		service := &servingv1.Service{}
		err := s.Get(ctx, key, service)
		if apierrors.IsNotFound(err) {
			service = &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: d.name}}
			d.shape(service)
			err = s.Create(ctx, service)
		} else if err == nil {
			d.shape(service)
			err = s.Update(ctx, service)
		}
		generation = service.Generation
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("applying service %s: %w", key, err)
	}
	return generation, nil
}

// shape writes the flags into the service's template.
func (d *deployment) shape(service *servingv1.Service) {
	spec := &service.Spec.Template.Spec
	if len(spec.Containers) == 0 {
		spec.Containers = []corev1.Container{{}}
	}
	c := &spec.Containers[0]
	c.Image = d.image
	for _, pair := range d.env {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			name = strings.TrimSuffix(pair, "-")
		}
		kept := c.Env[:0]
		for _, e := range c.Env {
			if e.Name != name {
				kept = append(kept, e)
			}
		}
		c.Env = kept
		if found {
			c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
		}
	}
}

// unserved warns when traffic is pinned to other revisions than the one just made.
func unserved(service *servingv1.Service) string {
	for _, t := range service.Status.Traffic {
		if t.RevisionName == service.Status.LatestReadyRevisionName {
			return ""
		}
	}
	return fmt.Sprintf("\nnote: %s gets no traffic, spec.traffic names other revisions", service.Status.LatestReadyRevisionName)
}

// settle is how long a Ready=False must stand before it is taken for final; it may still be about
// the revision before.
const settle = 2 * time.Second

// await watches the service until it is ready at that generation and returns its URL.
func (d *deployment) await(ctx context.Context, s *session, generation int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	watcher, err := s.Client.(client.WithWatch).Watch(ctx, &servingv1.ServiceList{}, client.InNamespace(d.namespace), client.MatchingFields{"metadata.name": d.name})
	if err != nil {
		return "", d.unreachable(err)
	}
	defer watcher.Stop()
	message := "nothing was heard of it"
	failed := time.NewTimer(d.timeout)
	for {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("service %s is not ready after %s: %s; `ebb describe %s` shows more", d.name, d.timeout, message, d.name)
		case <-failed.C:
			return "", fmt.Errorf("service %s failed: %s; `ebb describe %[1]s` and `ebb logs %[1]s` tell more", d.name, message)
		case event, open := <-watcher.ResultChan():
			if !open {
				return "", d.unreachable(errors.New("the watch ended"))
			}
			service, ok := event.Object.(*servingv1.Service)
			if !ok || service.Status.ObservedGeneration < generation {
				continue
			}
			ready := service.Status.GetCondition(apis.ConditionReady)
			switch {
			case ready.IsTrue():
				return service.Status.URL.String() + unserved(service), nil
			case ready.IsFalse():
				message = ready.Reason + ": " + ready.Message
				failed.Reset(settle)
			case ready != nil:
				message = ready.Reason + ": " + ready.Message
				failed.Reset(d.timeout)
			}
		}
	}
}
