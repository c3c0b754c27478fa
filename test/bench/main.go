// Command bench measures what ebb promises, each figure beside its limit or a peer measured in the
// same run, prints a table and writes test/bench/latest.json.
//
// It needs root, and from the distribution wrk, nginx, runc and the servers whose work is waited for:
// the Makefile's SERVERS. -short takes fewer samples; -run measures only the groups named: -run
// create,many.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// result is one figure.
type result struct {
	Group string  `json:"group"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Bar is what Value must not exceed, or must reach, as OK tells; 0 where the figure only informs.
	Bar float64 `json:"bar"`
	OK  bool    `json:"ok"`
	// Against says what it was compared with in the same run, and what that gave.
	Against string `json:"against"`
}

// atMost makes a figure that must not exceed its bar.
func atMost(name string, value float64, unit string, bar float64, against string) result {
	return result{Name: name, Value: round(value), Unit: unit, Bar: bar, OK: value <= bar, Against: against}
}

// atLeast makes a figure that must reach its bar.
func atLeast(name string, value float64, unit string, bar float64, against string) result {
	return result{Name: name, Value: round(value), Unit: unit, Bar: bar, OK: value >= bar, Against: against}
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
	// objects are how many ScaledObjects the group of that name makes.
	objects int
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
	flag.IntVar(&r.objects, "objects", fullObjects, "how many ScaledObjects the group objects makes")
	flag.StringVar(&only, "run", "", "only these groups, separated by commas: pod, up, cold, warm, idle, create, many, roll, burst, wake, step, objects")
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
		{"pod", pods},
		{"up", startUp},
		{"cold", coldStarts},
		{"warm", warmRequests},
		{"idle", idle},
		{"create", creations},
		{"many", many},
		{"roll", rolling},
		{"burst", bursts},
		{"wake", wakeUps},
		{"step", further},
		{"objects", objects},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), group.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s …\n", group.name)
		got, err := group.measure(ctx, r)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", group.name, err)
		}
		for n := range got {
			got[n].Group = group.name
			if os.Getenv(noisy) != "" {
				got[n].Against += "; others used the machine, too"
			}
		}
		results = append(results, got...)
	}
	return report(results, out)
}

// report prints the table and puts the results into the file, in the place of their groups' former
// ones.
func report(results []result, path string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FIGURE\tVALUE\tUNIT\tBAR\tOK\tCOMPARED WITH")
	for _, f := range results {
		bar, ok := "-", "-"
		if f.Bar != 0 || !f.OK {
			bar, ok = fmt.Sprint(f.Bar), map[bool]string{true: "yes", false: "NO"}[f.OK]
		}
		_, _ = fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit, bar, ok, f.Against)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	all, err := merged(path, results)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding results: %w", err)
	}
	return os.WriteFile(path, append(data, '\n'), 0o644) //nolint:gosec // a report for everybody
}

// merged reads the file and replaces the groups that were measured anew.
func merged(path string, results []result) ([]result, error) {
	var all []result
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return results, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading former results: %w", err)
	}
	for n := range results {
		if n > 0 && results[n].Group == results[n-1].Group {
			continue
		}
		group := results[n].Group
		at := slices.IndexFunc(all, func(r result) bool { return r.Group == group })
		all = slices.DeleteFunc(all, func(r result) bool { return r.Group == group })
		fresh := slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.Group != group })
		if at < 0 {
			at = len(all)
		}
		all = slices.Insert(all, at, fresh...)
	}
	return all, nil
}
