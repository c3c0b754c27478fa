package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/domain/recording"
	"ebb.dev/ebb/internal/server"
)

func scaleCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "scale", Short: "Try how something would scale"}
	c.AddCommand(previewCommand(o))
	return c
}

func previewCommand(o *options) *cobra.Command {
	var file, from string
	var values []string
	c := &cobra.Command{
		Use:   "preview -f file",
		Short: "Say what a ScaledObject would do now, or would have done over a recording, without doing it",
		Long: "Say what a ScaledObject would do now, without doing it: its triggers are asked once, nothing is written.\n" +
			"--value takes the place of what a trigger says, by the name of the trigger or of its metric.\n\n" +
			"With --from no trigger is asked: it says which replicas there would have been over the time of a recording.\n" +
			"That is CSV (time,NAME,…; a number, nothing for \"as before\", or \"failed\"), JSON lines\n" +
			`({"time": …, "values": {"NAME": 12, "OTHER": null}}), or what Prometheus answers for a range of` + "\n" +
			"keda_scaler_metrics_value. A time is one of RFC 3339 or a number of seconds, a name a trigger's or its metric's.",
		Example: "  ebb scale preview -f worker.yaml\n  ebb scale preview -f worker.yaml --value s0-redis-orders=250\n" +
			"  ebb scale preview -f worker.yaml --from monday.csv",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := o.preview(c.InOrStdin(), file, values)
			if err != nil {
				return err
			}
			if from != "" {
				return o.replay(c, p, from)
			}
			a, err := server.ReadPreview(c.Context(), o.folder(), p)
			if err != nil {
				return fmt.Errorf("asking what scaledobject %s would do: %w", p.Object.Name, err)
			}
			return printScaled(c.OutOrStdout(), "Preview of ScaledObject "+p.Object.Namespace+"/"+p.Object.Name, &a)
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "the ScaledObject's manifest; - for standard input")
	c.Flags().StringArrayVar(&values, "value", nil, "name=number instead of what a trigger says; may be given several times")
	c.Flags().StringVar(&from, "from", "", "a recording to replay; - for standard input")
	c.MarkFlagsMutuallyExclusive("value", "from")
	_ = c.MarkFlagRequired("filename")
	return o.withNamespace(c)
}

// replay prints what would have come of a recording.
func (o *options) replay(c *cobra.Command, p server.Preview, from string) error {
	text, err := readManifest(c.InOrStdin(), from)
	if err != nil {
		return err
	}
	samples, err := recording.Parse(text)
	if err != nil {
		return fmt.Errorf("reading the recording %s: %w", from, err)
	}
	r, err := server.ReadReplay(c.Context(), o.folder(), server.Recorded{Object: p.Object, Samples: samples})
	if err != nil {
		return fmt.Errorf("replaying %s for scaledobject %s: %w", from, p.Object.Name, err)
	}
	return printReplay(c.OutOrStdout(), "Replay of ScaledObject "+p.Object.Namespace+"/"+p.Object.Name, &r)
}

func printReplay(out io.Writer, title string, r *server.Replay) error {
	p := newPrinter(out)
	p.line("%s: %s from %s", title, r.To.Sub(r.From), moment(r, r.From))
	p.line("")
	p.line("TIME\tREPLICAS\tTRIGGERS\tWHY")
	p.line("%s\t%d\t\tat the start", moment(r, r.From), r.Start)
	for i := range r.Steps {
		s := &r.Steps[i]
		var said []string
		for _, name := range slices.Sorted(maps.Keys(s.Values)) {
			said = append(said, fmt.Sprintf("%s=%g", name, s.Values[name]))
		}
		for _, name := range s.Failed {
			said = append(said, name+" failed")
		}
		p.line("%s\t%d → %d\t%s\t%s", moment(r, s.At), s.From, s.To, strings.Join(said, " "), s.Why)
	}
	p.line("")
	hours, most := r.Run.Hours(), float64(r.Peak)*r.To.Sub(r.From).Hours()
	p.line("peak\t%d, first at %s", r.Peak, moment(r, r.PeakAt))
	p.line("replica-hours\t%.2f; the peak all the time would be %.2f", hours, most)
	p.line("starts from zero\t%d", r.Wakes)
	if r.AtMax > 0 {
		p.line("at the maximum\t%s of %d replicas", r.AtMax.Round(time.Second), r.Max)
	}
	if len(r.Beside) > 0 {
		p.line("left out\t%s: only the autoscaler reads them", strings.Join(r.Beside, ", "))
	}
	return p.end()
}

// moment is a time of a replay; where that is counted in seconds, how far it is from the start of counting.
func moment(r *server.Replay, at time.Time) string {
	if epoch := time.Unix(0, 0); r.From.Sub(epoch) < 366*24*time.Hour {
		return at.Sub(epoch).Round(time.Millisecond).String()
	}
	return at.Round(time.Second).Format(time.RFC3339)
}

// preview reads what is to be tried: the first ScaledObject of a manifest.
func (o *options) preview(stdin io.Reader, file string, values []string) (server.Preview, error) {
	data, err := readManifest(stdin, file)
	if err != nil {
		return server.Preview{}, err
	}
	p := server.Preview{Values: map[string]float64{}}
	for part := range strings.SplitSeq("\n"+string(data), "\n---") {
		so := &kedav1alpha1.ScaledObject{}
		if err := yaml.Unmarshal([]byte(part), so); err != nil {
			return p, fmt.Errorf("reading %s: %w", file, err)
		}
		if so.Kind == "ScaledObject" {
			p.Object = so
			break
		}
	}
	if p.Object == nil {
		return p, fmt.Errorf("reading %s: there is no ScaledObject in it", file)
	}
	if p.Object.Namespace == "" {
		p.Object.Namespace = o.namespace
	}
	for _, given := range values {
		name, text, _ := strings.Cut(given, "=")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || name == "" {
			return p, fmt.Errorf("%w: --value %s is not name=number", errUsage, given)
		}
		p.Values[name] = value
	}
	return p, nil
}

func readManifest(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}
