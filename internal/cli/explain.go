package cli

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/server"
)

func explainCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "explain scaledobject/name | scaledjob/name",
		Short:   "Say why there are as many replicas or Jobs as there are, and what would change it",
		Example: "  ebb explain scaledobject/worker\n  ebb explain so/worker -n shop",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, _ := strings.Cut(args[0], "/")
			key := types.NamespacedName{Namespace: o.namespace, Name: name}
			switch strings.ToLower(kind) {
			case "so", "scaledobject", "scaledobjects", "scaledobject.keda.sh":
				a, err := server.ReadScaled(c.Context(), o.folder(), key)
				if err != nil {
					return fmt.Errorf("explaining scaledobject %s: %w", key, err)
				}
				return printScaled(c.OutOrStdout(), "ScaledObject "+key.String(), &a)
			case "sj", "scaledjob", "scaledjobs", "scaledjob.keda.sh":
				a, err := server.ReadJobs(c.Context(), o.folder(), key)
				if err != nil {
					return fmt.Errorf("explaining scaledjob %s: %w", key, err)
				}
				return printJobs(c.OutOrStdout(), "ScaledJob "+key.String(), &a)
			default:
				return fmt.Errorf("%w: %q is neither scaledobject/name nor scaledjob/name; `ebb describe` is for services", errUsage, args[0])
			}
		},
	}
	return o.withNamespace(c)
}

// printer writes lines until one fails.
type printer struct {
	w   *tabwriter.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func newPrinter(out io.Writer) *printer {
	return &printer{w: tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)}
}

func (p *printer) end() error {
	if err := p.w.Flush(); p.err == nil {
		p.err = err
	}
	return p.err
}

func printScaled(out io.Writer, title string, a *server.ScaledAccount) error {
	p := newPrinter(out)
	p.line("%s: %s", title, a.Target)
	p.line("replicas\t%d, wanted %d (%d to %d)", a.Current, a.Wish, a.Min, a.Max)
	p.line("active\t%t: %s", a.Active, a.Message)
	if a.By != "" {
		p.line("asked for by\t%s", a.By)
	}
	if a.Bound != "" {
		p.line("bounded by\t%s", a.Bound)
	}
	if a.Problem != "" {
		p.line("problem\t%s", a.Problem)
	}
	if a.Formula != "" {
		p.line("formula\t%s = %g", a.Formula, a.Composite)
	}
	p.line("")
	p.line("TRIGGER\tMETRIC\tVALUE\tTARGET\tWANTS\tACTIVE\tASKED")
	for i := range a.Triggers {
		t := &a.Triggers[i]
		name := t.Type
		if t.Name != "" {
			name += " " + t.Name
		}
		switch {
		case t.Error != "":
			p.line("%s\t%s\t-\t-\t-\t-\t%s", name, t.Metric, t.Error)
		case t.Target == 0:
			p.line("%s\t%s\t-\t-\t-\t-\t-", name, t.Metric)
		default:
			p.line("%s\t%s\t%g\t%s\t%d\t%t\t%s", name, t.Metric, t.Value, targetText(t.Target, t.Average), t.Wants, t.Active, asked(t.Pushed, t.Age, t.Took))
		}
	}
	p.line("")
	p.line("what would change it")
	for _, change := range changes(a) {
		p.line("  %s", change)
	}
	if len(a.Trail) > 0 {
		p.line("")
		p.line("what happened")
		for _, s := range a.Trail {
			p.line("  %s\t%d → %d\t%s", s.At.Local().Format(time.TimeOnly), s.From, s.To, s.Why)
		}
	}
	return p.end()
}

func targetText(target float64, average bool) string {
	if average {
		return fmt.Sprintf("%g each", target)
	}
	return fmt.Sprintf("%g", target)
}

func asked(pushed bool, age, took time.Duration) string {
	how := "polled"
	if pushed {
		how = "pushed"
	}
	return fmt.Sprintf("%s, %s ago in %s", how, age.Round(time.Second), took.Round(100*time.Microsecond))
}

// more says which metrics would ask for more replicas, and when.
func more(a *server.ScaledAccount) (out []string) {
	for i := range a.Triggers {
		t := &a.Triggers[i]
		switch {
		case t.Error != "" || t.Target == 0 || a.Formula != "":
		case !a.Active:
			out = append(out, fmt.Sprintf("%s above its activation value: %d replicas at least", t.Metric, max(1, a.Min)))
		case a.Current >= a.Max:
		case t.Average:
			out = append(out, fmt.Sprintf("%s above %g: more than %d", t.Metric, tolerated(t.Target*float64(a.Current), 1.1), a.Current))
		default:
			out = append(out, fmt.Sprintf("%s above %g: more than %d, by the autoscaler", t.Metric, tolerated(t.Target, 1.1), a.Current))
		}
	}
	return out
}

// changes says what would have another number of replicas follow.
func changes(a *server.ScaledAccount) []string {
	out := more(a)
	if a.Formula != "" {
		out = append(out, "another result of the formula")
	}
	lowest := a.Min
	if a.Idle != nil {
		lowest = *a.Idle
	}
	switch {
	case a.Current >= a.Max:
		out = append(out, fmt.Sprintf("a maxReplicaCount above %d, for more", a.Max))
	case a.Current > lowest && a.Left > 0:
		out = append(out, fmt.Sprintf("nothing active for another %s: %d", a.Left.Round(time.Second), lowest))
	case a.Current > lowest && a.Active:
		out = append(out, fmt.Sprintf("no trigger active for %s: %d", a.Cooldown, lowest))
	}
	return out
}

// tolerated is a target with the autoscaler's tolerance, without noise in its last digits.
func tolerated(target, by float64) float64 { return math.Round(target*by*1000) / 1000 }

func printJobs(out io.Writer, title string, a *server.JobsAccount) error {
	p := newPrinter(out)
	p.line("%s", title)
	p.line("jobs\t%d running (%d not started), wanted %d (%d to %d)", a.Running, a.Pending, a.Wanted, a.Min, a.Max)
	p.line("decision\t%d made, %d short: %s", a.Created, a.Short, a.Message)
	p.line("strategy\t%s, triggers combined by %s", a.Strategy, a.Combination)
	if a.Error != "" {
		p.line("problem\t%s", a.Error)
	}
	p.line("")
	p.line("TRIGGER\tMETRIC\tVALUE\tTARGET\tACTIVE")
	for _, t := range a.Triggers {
		name := t.Type
		if t.Name != "" {
			name += " " + t.Name
		}
		if t.Error != "" {
			p.line("%s\t%s\t-\t-\t%s", name, t.Metric, t.Error)
			continue
		}
		p.line("%s\t%s\t%g\t%s\t%t", name, t.Metric, t.Value, targetText(t.Target, true), t.Active)
	}
	return p.end()
}
