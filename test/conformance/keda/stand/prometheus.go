package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// counter counts requests and shows the sum as a metric.
func counter(context.Context, []string) error {
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# HELP http_requests_total Total number of http requests.\n# TYPE http_requests_total counter\nhttp_requests_total %d\n", requests.Load())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		fmt.Fprint(w, "Received a request")
	})
	return serve(":8080", mux)
}

// hey sends -n requests, -c at once.
func hey(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("hey", flag.ContinueOnError)
	requests, workers := set.Int("n", 200, ""), set.Int("c", 50, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	var group sync.WaitGroup
	var failed atomic.Int64
	for range *workers {
		group.Go(func() {
			for range *requests / *workers {
				if err := request(ctx, http.MethodGet, set.Arg(0)); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	fmt.Printf("%d requests, %d failed\n", *requests, failed.Load())
	return nil
}

func request(ctx context.Context, method, address string) error {
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// configReload posts to an address when a mounted folder has changed.
func configReload(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("configmap-reload", flag.ContinueOnError)
	folder, address := set.String("volume-dir", "", ""), set.String("webhook-url", "", "")
	if err := set.Parse(args); err != nil {
		return err
	}
	last, _ := os.Readlink(*folder + "/..data")
	for pause(ctx, 2*time.Second) == nil {
		now, err := os.Readlink(*folder + "/..data") // replaced at once when the content is
		if err != nil || now == last {
			continue
		}
		last = now
		if err := request(ctx, http.MethodPost, *address); err != nil {
			fmt.Fprintln(os.Stderr, "reloading:", err)
		}
	}
	return nil
}
