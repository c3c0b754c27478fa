// Command stand is the programs that KEDA's tests deploy, in one: it does what its name says.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// programs are what it can be; a name may be that of a link to it.
var programs = map[string]func(ctx context.Context, args []string) error{
	"web":                 web,
	"sums":                sums,
	"metrics-api":         metricsAPI,
	"external-scaler":     func(ctx context.Context, _ []string) error { return externalScaler(ctx, false) },
	"external-scaler-old": func(ctx context.Context, _ []string) error { return externalScaler(ctx, true) },
	"cloudevents-http":    cloudEvents,
	"rollouts":            rollouts,
	"redis-lists":         redisLists,
	"redis-streams":       redisStreams,
	"send":                send,
	"receive":             receive,
	"tasks":               tasks,
	"orders":              orders,
	"nats":                natsTool,
	"queue":               queue,
	"nsqd":                nsqDaemon,
	"nsqlookupd":          nsqLookup,
	"discovery":           discover,
	"counter":             counter,
	"hey":                 hey,
	"configmap-reload":    configReload,
	"beanstalkd-cli":      beanstalk,
	"resolve":             resolve,
	"nc":                  netcat,
}

func main() {
	name := filepath.Base(os.Args[0])
	if link, err := os.Readlink(os.Args[0]); err == nil && programs[name] == nil {
		name = filepath.Base(link)
	}
	if name == "stand" {
		for name := range programs {
			fmt.Println(name)
		}
		return
	}
	program, known := programs[name]
	if !known {
		fmt.Fprintln(os.Stderr, "no such program:", name)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := program(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) { // which is how they are told to end
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// web answers on the ports that nginx's images use.
func web(context.Context, []string) error {
	greet := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Welcome") })
	ended := make(chan error, 2)
	for _, port := range []string{":80", ":8080"} {
		go func() { ended <- serve(port, greet) }()
	}
	return <-ended
}

// sums is a web server that works hard for each request, as the example of horizontal autoscaling does.
func sums(context.Context, []string) error {
	const roots = 30_000_000
	return serve(":80", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sum := 0.0001
		for range roots {
			sum += math.Sqrt(sum)
		}
		fmt.Fprintln(w, "OK!", sum)
	}))
}

// resolve prints the first address of a host.
func resolve(ctx context.Context, args []string) error {
	found, err := net.DefaultResolver.LookupHost(ctx, first(args))
	if err != nil {
		return err
	}
	fmt.Println(found[0])
	return nil
}

func serve(address string, handler http.Handler) error {
	return (&http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}).ListenAndServe()
}

// pause waits, unless the program is told to end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// number is a variable of the environment; otherwise is what it is when it is not there.
func number(variable string, otherwise int) (int, error) {
	text, there := os.LookupEnv(variable)
	if !there {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", variable, err)
	}
	return n, nil
}

// first is the first argument: what a program with several shall do.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
