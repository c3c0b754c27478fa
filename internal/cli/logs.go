package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/server"
)

// logging is what `ebb logs` was asked for.
type logging struct {
	*options

	service   string
	requests  bool
	container string
	follow    bool
	previous  bool
	since     time.Duration
	tail      int64

	mu  sync.Mutex // guards out: lines of several instances never mix
	out io.Writer
}

func logsCommand(o *options) *cobra.Command {
	l := &logging{options: o}
	c := &cobra.Command{
		Use:   "logs service",
		Short: "Print what a service's instances write",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l.service, l.out = args[0], c.OutOrStdout()
			return l.run(c.Context())
		},
	}
	c.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on, with instances that start later too")
	c.Flags().BoolVar(&l.requests, "requests", false, "the requests it got instead, as config-observability has them logged")
	c.Flags().BoolVarP(&l.previous, "previous", "p", false, "of the container before the last restart")
	c.Flags().StringVarP(&l.container, "container", "c", "", "container (default: the serving one)")
	c.Flags().DurationVar(&l.since, "since", 0, "only lines younger than this")
	c.Flags().Int64Var(&l.tail, "tail", -1, "only this many last lines of each instance")
	return o.withNamespace(c)
}

func (l *logging) run(ctx context.Context) error {
	s, err := l.connect()
	if err != nil {
		return err
	}
	if err := s.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: l.service}, &servingv1.Service{}); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("no service %s in namespace %s; `ebb get services -A` lists all", l.service, l.namespace)
		}
		return l.unreachable(err)
	}
	if l.requests {
		return l.printRequests(ctx)
	}
	selector := metav1.ListOptions{LabelSelector: serving.ServiceLabelKey + "=" + l.service}
	pods, err := s.clientset.CoreV1().Pods(l.namespace).List(ctx, selector)
	if err != nil {
		return l.unreachable(err)
	}
	if l.follow {
		selector.ResourceVersion = pods.ResourceVersion
		return l.followAll(ctx, s, pods.Items, selector)
	}
	if len(pods.Items) == 0 {
		_, err := fmt.Fprintf(l.out, "no instance of %s runs now (it scales from zero at the next request); -f waits for one\n", l.service)
		return err
	}
	var errs []error
	for i := range pods.Items {
		errs = append(errs, l.stream(ctx, s, &pods.Items[i], len(pods.Items) > 1))
	}
	return errors.Join(errs...)
}

// printRequests copies the request log of the ebb on this machine.
func (l *logging) printRequests(ctx context.Context) error {
	log, err := server.ReadRequests(ctx, l.folder(), url.Values{
		"namespace": {l.namespace}, "service": {l.service}, "follow": {strconv.FormatBool(l.follow)}, "tail": {strconv.FormatInt(l.tail, 10)},
	})
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if _, err := io.Copy(l.out, log); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reading the request log: %w", err)
	}
	return nil
}

// followAll streams the instances there are and each that comes, until the user ends it.
func (l *logging) followAll(ctx context.Context, s *session, pods []corev1.Pod, selector metav1.ListOptions) error {
	watcher, err := s.clientset.CoreV1().Pods(l.namespace).Watch(ctx, selector)
	if err != nil {
		return l.unreachable(err)
	}
	defer watcher.Stop()
	var streams sync.WaitGroup
	defer streams.Wait()
	seen := map[string]bool{}
	begin := func(pod *corev1.Pod) {
		if seen[pod.Name] || !started(pod) {
			return
		}
		seen[pod.Name] = true
		streams.Go(func() {
			if err := l.stream(ctx, s, pod, true); err != nil && ctx.Err() == nil {
				l.line(err.Error())
			}
		})
	}
	for i := range pods {
		begin(&pods[i])
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-watcher.ResultChan():
			if !open {
				return l.unreachable(errors.New("the watch ended"))
			}
			if pod, ok := event.Object.(*corev1.Pod); ok && event.Type != watch.Deleted {
				begin(pod)
			}
		}
	}
}

// started says whether any container of the pod has run, so that there can be a log.
func started(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return false
}

// stream copies one instance's log, each line with the instance's name where there are several.
func (l *logging) stream(ctx context.Context, s *session, pod *corev1.Pod, named bool) error {
	opts := &corev1.PodLogOptions{Container: l.container, Follow: l.follow, Previous: l.previous}
	if opts.Container == "" {
		opts.Container = servingContainer(pod)
	}
	if l.since > 0 {
		seconds := int64(l.since.Seconds())
		opts.SinceSeconds = &seconds
	}
	if l.tail >= 0 {
		opts.TailLines = &l.tail
	}
	stream, err := s.clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, opts).Stream(ctx)
	if err != nil {
		return fmt.Errorf("reading the log of %s: %w", pod.Name, err)
	}
	defer func() { _ = stream.Close() }()
	prefix := ""
	if named {
		prefix = "[" + pod.Name + "] "
	}
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			l.line(prefix + line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the log of %s: %w", pod.Name, err)
		}
	}
}

func (l *logging) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text == "" || text[len(text)-1] != '\n' {
		text += "\n"
	}
	_, _ = io.WriteString(l.out, text)
}

// servingContainer is the one with the port, as the revision says; else the first.
func servingContainer(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return c.Name
		}
	}
	return pod.Spec.Containers[0].Name
}
