package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/server"
)

func describeCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "describe service",
		Short: "Show a service: its state and why, traffic, instances, and what the autoscaler wants",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := o.connect()
			if err != nil {
				return err
			}
			v, err := o.view(c.Context(), s, args[0])
			if err != nil {
				return err
			}
			v.print(c.OutOrStdout())
			return nil
		},
	}
	return o.withNamespace(c)
}

// view is all there is to say about one service.
type view struct {
	service   servingv1.Service
	revisions []servingv1.Revision
	pods      []corev1.Pod
	domains   []servingv1beta1.DomainMapping  // that lead to it
	scaling   map[string]server.RevisionState // by revision name; empty where ebb does not run here
}

func (o *options) view(ctx context.Context, s *session, name string) (*view, error) {
	v := &view{}
	key := client.ObjectKey{Namespace: o.namespace, Name: name}
	if err := s.Get(ctx, key, &v.service); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("no service %s in namespace %s; `ebb get services -A` lists all", name, o.namespace)
		}
		return nil, o.unreachable(err)
	}
	mine := []client.ListOption{client.InNamespace(o.namespace), client.MatchingLabels{serving.ServiceLabelKey: name}}
	var revisions servingv1.RevisionList
	if err := s.List(ctx, &revisions, mine...); err != nil {
		return nil, fmt.Errorf("listing revisions: %w", err)
	}
	var pods corev1.PodList
	if err := s.List(ctx, &pods, mine...); err != nil {
		return nil, fmt.Errorf("listing instances: %w", err)
	}
	var mappings servingv1beta1.DomainMappingList
	if err := s.List(ctx, &mappings, client.InNamespace(o.namespace)); err != nil {
		return nil, fmt.Errorf("listing domain mappings: %w", err)
	}
	v.domains = slices.DeleteFunc(mappings.Items, func(m servingv1beta1.DomainMapping) bool {
		return m.Spec.Ref.Name != name || m.Spec.Ref.Kind != "Service" || m.Spec.Ref.APIVersion != servingv1.SchemeGroupVersion.String()
	})
	v.revisions, v.pods = revisions.Items, pods.Items
	sort.Slice(v.revisions, func(i, j int) bool {
		return v.revisions[j].CreationTimestamp.Before(&v.revisions[i].CreationTimestamp)
	})
	state, err := server.ReadScaling(ctx, o.folder(), o.namespace)
	if err != nil {
		return nil, err
	}
	v.scaling = state
	return v, nil
}

func (v *view) print(out io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "Service    %s/%s\n", v.service.Namespace, v.service.Name)
	if v.service.Status.URL != nil {
		fmt.Fprintf(&b, "URL        %s\n", v.service.Status.URL)
	}
	for i := range v.domains {
		status, reason := readiness(v.domains[i].Status.GetCondition(apis.ConditionReady))
		fmt.Fprintf(&b, "Domain     %s  %s\n", v.domains[i].Status.URL, strings.TrimSpace("ready "+status+" "+reason))
	}
	fmt.Fprintf(&b, "Age        %s\n", age(v.service.CreationTimestamp.Time))
	for _, kind := range []apis.ConditionType{apis.ConditionReady, servingv1.ServiceConditionConfigurationsReady, servingv1.ServiceConditionRoutesReady} {
		status, reason := readiness(v.service.Status.GetCondition(kind))
		fmt.Fprintf(&b, "%-20s %-8s %s\n", kind, status, reason)
	}
	v.printTraffic(&b)
	for i := range v.revisions {
		v.printRevision(&b, &v.revisions[i])
	}
	_, _ = io.WriteString(out, b.String())
}

func (v *view) printTraffic(b *strings.Builder) {
	b.WriteString("\nTraffic\n")
	for _, t := range v.service.Status.Traffic {
		percent := int64(0)
		if t.Percent != nil {
			percent = *t.Percent
		}
		fmt.Fprintf(b, "  %3d%%  %s", percent, t.RevisionName)
		if t.LatestRevision != nil && *t.LatestRevision {
			b.WriteString(" (latest)")
		}
		if t.Tag != "" {
			fmt.Fprintf(b, "  #%s  %s", t.Tag, t.URL)
		}
		b.WriteString("\n")
	}
}

func (v *view) printRevision(b *strings.Builder, r *servingv1.Revision) {
	status, reason := readiness(r.Status.GetCondition(apis.ConditionReady))
	fmt.Fprintf(b, "\nRevision %s  (%s old)\n  ready      %s %s\n", r.Name, age(r.CreationTimestamp.Time), status, reason)
	for _, c := range r.Spec.Containers {
		fmt.Fprintf(b, "  image      %s\n", c.Image)
	}
	if s, known := v.scaling[r.Name]; known {
		wish := "unknown"
		if s.Wish >= 0 {
			wish = strconv.Itoa(int(s.Wish))
		}
		fmt.Fprintf(b, "  wish       %s: %s\n", wish, s.Reason)
		if s.ColdStart != "" {
			fmt.Fprintf(b, "  cold start %s\n", s.ColdStart)
		}
	}
	for i := range v.pods {
		pod := &v.pods[i]
		if pod.Labels[serving.RevisionLabelKey] != r.Name {
			continue
		}
		state := string(pod.Status.Phase)
		if podReady(pod) {
			state = "Ready"
		}
		fmt.Fprintf(b, "  instance   %s  %s  %s  %s\n", pod.Name, state, pod.Status.PodIP, age(pod.CreationTimestamp.Time))
		for _, c := range pod.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil {
				fmt.Fprintf(b, "             %s: %s: %s\n", c.Name, w.Reason, w.Message)
			}
		}
	}
}
