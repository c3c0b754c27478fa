package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func getCommand(o *options) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:       "get services|revisions|instances|domainmappings [name...]",
		Short:     "List what runs; any other kind: `ebb kubectl get`",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: []string{"services", "revisions", "instances", "domainmappings"},
		RunE: func(c *cobra.Command, args []string) error {
			list, known := map[string]func(context.Context, *session, listing) error{
				"service": listServices, "revision": listRevisions, "instance": listInstances, "domainmapping": listDomainMappings,
			}[strings.TrimSuffix(strings.ToLower(args[0]), "s")]
			if !known {
				return fmt.Errorf("%w: %q is not services, revisions, instances or domainmappings; `ebb kubectl get %s` lists any kind", errUsage, args[0], args[0])
			}
			s, err := o.connect()
			if err != nil {
				return err
			}
			l := listing{namespace: o.namespace, all: all, names: args[1:], out: c.OutOrStdout()}
			return o.explain(list(c.Context(), s, l))
		},
	}
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "all namespaces")
	return o.withNamespace(c)
}

// listing is where to look and where to print.
type listing struct {
	namespace string
	all       bool
	names     []string // only these; all when empty
	out       io.Writer
}

func (l listing) scope() []client.ListOption {
	if l.all {
		return nil
	}
	return []client.ListOption{client.InNamespace(l.namespace)}
}

// table prints rows under a head, with the namespace first where all are listed.
func (l listing) table(head string, rows [][]string) error {
	if len(l.names) > 0 {
		rows = slices.DeleteFunc(rows, func(row []string) bool { return !slices.Contains(l.names, row[1]) })
	}
	if len(rows) == 0 {
		where := "in namespace " + l.namespace
		if l.all {
			where = "in any namespace"
		}
		_, err := fmt.Fprintf(l.out, "none %s\n", where)
		return err
	}
	sort.Slice(rows, func(i, j int) bool { return strings.Join(rows[i][:2], "\x00") < strings.Join(rows[j][:2], "\x00") })
	w := tabwriter.NewWriter(l.out, 0, 0, 3, ' ', 0)
	if l.all {
		head = "NAMESPACE\t" + head
	}
	_, _ = fmt.Fprintln(w, head)
	for _, row := range rows {
		if !l.all {
			row = row[1:]
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// readiness is a condition in two words: its status, and on one line the reason while it isn't True.
func readiness(c *apis.Condition) (status, reason string) {
	switch {
	case c == nil:
		return "Unknown", "not looked at yet"
	case c.IsTrue():
		return "True", ""
	case c.Message != "":
		return string(c.Status), c.Reason + ": " + strings.Join(strings.Fields(c.Message), " ")
	default:
		return string(c.Status), c.Reason
	}
}

func age(t time.Time) string { return duration.HumanDuration(time.Since(t)) }

func listServices(ctx context.Context, s *session, l listing) error {
	var services servingv1.ServiceList
	if err := s.List(ctx, &services, l.scope()...); err != nil {
		return fmt.Errorf("listing services: %w", err)
	}
	instances, err := countInstances(ctx, s, l)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(services.Items))
	for i := range services.Items {
		service := &services.Items[i]
		ready, reason := readiness(service.Status.GetCondition(apis.ConditionReady))
		url := ""
		if service.Status.URL != nil {
			url = service.Status.URL.String()
		}
		rows = append(rows, []string{
			service.Namespace, service.Name, url, service.Status.LatestReadyRevisionName, fmt.Sprint(instances[service.Namespace+"/"+service.Name]),
			age(service.CreationTimestamp.Time), ready, reason,
		})
	}
	return l.table("NAME\tURL\tREVISION\tINSTANCES\tAGE\tREADY\tREASON", rows)
}

// countInstances counts ready pods by service, "namespace/name".
func countInstances(ctx context.Context, s *session, l listing) (map[string]int, error) {
	var pods corev1.PodList
	if err := s.List(ctx, &pods, append(l.scope(), client.HasLabels{serving.ServiceLabelKey})...); err != nil {
		return nil, fmt.Errorf("listing instances: %w", err)
	}
	count := map[string]int{}
	for i := range pods.Items {
		if podReady(&pods.Items[i]) {
			count[pods.Items[i].Namespace+"/"+pods.Items[i].Labels[serving.ServiceLabelKey]]++
		}
	}
	return count, nil
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

func listRevisions(ctx context.Context, s *session, l listing) error {
	var revisions servingv1.RevisionList
	if err := s.List(ctx, &revisions, l.scope()...); err != nil {
		return fmt.Errorf("listing revisions: %w", err)
	}
	rows := make([][]string, 0, len(revisions.Items))
	for i := range revisions.Items {
		r := &revisions.Items[i]
		ready, reason := readiness(r.Status.GetCondition(apis.ConditionReady))
		replicas := "0"
		if r.Status.ActualReplicas != nil {
			replicas = fmt.Sprint(*r.Status.ActualReplicas)
		}
		rows = append(rows, []string{r.Namespace, r.Name, r.Labels[serving.ServiceLabelKey], replicas, age(r.CreationTimestamp.Time), ready, reason})
	}
	return l.table("NAME\tSERVICE\tINSTANCES\tAGE\tREADY\tREASON", rows)
}

func listInstances(ctx context.Context, s *session, l listing) error {
	var pods corev1.PodList
	if err := s.List(ctx, &pods, append(l.scope(), client.HasLabels{serving.RevisionLabelKey})...); err != nil {
		return fmt.Errorf("listing instances: %w", err)
	}
	rows := make([][]string, 0, len(pods.Items))
	for i := range pods.Items {
		pod := &pods.Items[i]
		state := string(pod.Status.Phase)
		switch {
		case pod.DeletionTimestamp != nil:
			state = "Draining"
		case podReady(pod):
			state = "Ready"
		}
		restarts := int32(0)
		for _, c := range pod.Status.ContainerStatuses {
			restarts += c.RestartCount
		}
		rows = append(rows, []string{pod.Namespace, pod.Name, pod.Labels[serving.RevisionLabelKey], pod.Status.PodIP, fmt.Sprint(restarts), age(pod.CreationTimestamp.Time), state})
	}
	return l.table("NAME\tREVISION\tIP\tRESTARTS\tAGE\tSTATE", rows)
}

func listDomainMappings(ctx context.Context, s *session, l listing) error {
	var mappings servingv1beta1.DomainMappingList
	if err := s.List(ctx, &mappings, l.scope()...); err != nil {
		return fmt.Errorf("listing domain mappings: %w", err)
	}
	rows := make([][]string, 0, len(mappings.Items))
	for i := range mappings.Items {
		m := &mappings.Items[i]
		ready, reason := readiness(m.Status.GetCondition(apis.ConditionReady))
		url := ""
		if m.Status.URL != nil {
			url = m.Status.URL.String()
		}
		rows = append(rows, []string{m.Namespace, m.Name, url, m.Spec.Ref.Kind + "/" + m.Spec.Ref.Name, age(m.CreationTimestamp.Time), ready, reason})
	}
	return l.table("NAME\tURL\tLEADS TO\tAGE\tREADY\tREASON", rows)
}
