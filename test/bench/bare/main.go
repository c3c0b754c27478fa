// Command bare runs nothing but the embedded Kubernetes on a data folder: what ebb's own figures are
// compared with. It prints "ready" and runs until SIGTERM.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, config.Folder(os.Args[1]), os.Args[2])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, folder config.Folder, address string) error {
	folder, err := folder.Make()
	if err != nil {
		return err
	}
	id, err := config.LoadIdentity(folder)
	if err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(address); err != nil {
		return err
	} else if _, err := strconv.Atoi(port); err != nil {
		return err
	}
	log := telemetry.NewLogger(os.Stderr, false)
	telemetry.AdoptLibraries(log, false)
	c, err := cluster.Start(ctx, cluster.Config{Folder: folder, ID: id, APIAddress: address, Log: log})
	if err != nil {
		return err
	}
	if err := c.Ready(ctx); err != nil {
		return errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	fmt.Println("ready")
	<-ctx.Done()
	return c.Stop(context.WithoutCancel(ctx))
}
