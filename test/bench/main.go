// Command bench measures what ebb promises, each figure beside its limit or a peer measured in the
// same run, prints a table and writes test/bench/latest.json.
//
// It needs root, and wrk, nginx and runc from the distribution. -short takes fewer samples; -run
// selects figures by a part of their group's name.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
)

// result is one figure.
type result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Bar is what Value must not exceed; 0 where the figure only informs.
	Bar float64 `json:"bar"`
	OK  bool    `json:"ok"`
	// Against says what it was compared with in the same run, and what that gave.
	Against string `json:"against"`
}

// atMost makes a figure that must not exceed its bar.
func atMost(name string, value float64, unit string, bar float64, against string) result {
	return result{Name: name, Value: round(value), Unit: unit, Bar: bar, OK: value <= bar, Against: against}
}

// info makes a figure without a bar.
func info(name string, value float64, unit, against string) result {
	return result{Name: name, Value: round(value), Unit: unit, OK: true, Against: against}
}

func round(v float64) float64 { return float64(int64(v*1000+0.5)) / 1000 }

// run is what the measurements share.
type run struct {
	bin   string // the ebb to measure
	bare  string // a program with nothing but the embedded Kubernetes
	hello string // a static HTTP server
	dir   string
	short bool
}

// samples gives the number for a long run, or fewer for a short one.
func (r *run) samples(long, short int) int {
	if r.short {
		return short
	}
	return long
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "reverse-proxy" {
		exit(reverseProxy(os.Args[2], os.Args[3]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	exit(bench(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func bench(ctx context.Context) error {
	r := &run{}
	var only, out string
	flag.StringVar(&r.bin, "ebb", "bin/ebb", "binary to measure")
	flag.BoolVar(&r.short, "short", false, "fewer samples")
	flag.StringVar(&only, "run", "", "only groups whose name contains this")
	flag.StringVar(&out, "out", "test/bench/latest.json", "file for the results")
	flag.Parse()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.dir) }()
	var results []result
	for _, group := range []struct {
		name    string
		measure func(context.Context, *run) ([]result, error)
	}{
		{"pod", pods}, {"up", startUp}, {"cold", coldStarts}, {"warm", warmRequests}, {"idle", idle},
	} {
		if !strings.Contains(group.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s …\n", group.name)
		got, err := group.measure(ctx, r)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", group.name, err)
		}
		results = append(results, got...)
	}
	return report(results, out, only == "")
}

// report prints the table; a whole run is written to the file too.
func report(results []result, path string, whole bool) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FIGURE\tVALUE\tUNIT\tBAR\tOK\tCOMPARED WITH")
	for _, f := range results {
		bar, ok := "-", "-"
		if f.Bar != 0 {
			bar, ok = fmt.Sprint(f.Bar), map[bool]string{true: "yes", false: "NO"}[f.OK]
		}
		_, _ = fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit, bar, ok, f.Against)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !whole {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding results: %w", err)
	}
	return os.WriteFile(path, append(data, '\n'), 0o644) //nolint:gosec // a report for everybody
}
