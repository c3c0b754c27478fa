package main

import (
	"context"
	"fmt"
	"time"
)

// Bars of an idle ebb.
const (
	barResident = 450 // MB
	barIdleCPU  = 3   // percent of a core above the bare Kubernetes
	idleMany    = 100
)

// idle measures memory with nothing deployed, and CPU with many services at zero against the bare
// embedded Kubernetes, both watched during the same minute.
func idle(ctx context.Context, r *run) ([]result, error) {
	bare, err := r.startBare(ctx, "idle-bare")
	if err != nil {
		return nil, err
	}
	defer func() { _ = bare.stop() }()
	i, err := r.install("idle")
	if err != nil {
		return nil, err
	}
	if _, err := i.up(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	pid, err := i.pid(ctx)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, r); err != nil {
		return nil, err
	}
	ours, err := residentMB(pid)
	if err != nil {
		return nil, err
	}
	theirs, err := residentMB(bare.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	if _, err := i.deployMany(ctx, idleMany); err != nil {
		return nil, err
	}
	if err := i.allAtZero(ctx); err != nil {
		return nil, err
	}
	if err := settle(ctx, r); err != nil {
		return nil, err
	}
	shares, err := cpuShares(ctx, time.Duration(r.samples(60, 20))*time.Second, pid, bare.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	full, err := residentMB(pid)
	if err != nil {
		return nil, err
	}
	return []result{
		atMost("resident memory of the whole process, no service", ours, "MB", barResident, fmt.Sprintf("the bare embedded Kubernetes: %.0f MB", theirs)),
		atMost(fmt.Sprintf("CPU with %d services at zero, above the bare Kubernetes", idleMany), shares[0]-shares[1], "% of a core", barIdleCPU, fmt.Sprintf("ebb %.2f%%, bare Kubernetes %.2f%%", shares[0], shares[1])),
		info(fmt.Sprintf("resident memory with %d services at zero", idleMany), full, "MB", "no service: "+fmt.Sprintf("%.0f MB", ours)),
	}, nil
}

// settle lets start-up work and garbage end.
func settle(ctx context.Context, r *run) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(r.samples(30, 10)) * time.Second):
	}
	return quiet(ctx)
}

// cpuShares watches processes for a while and gives each one's use in percent of a core.
func cpuShares(ctx context.Context, during time.Duration, pids ...int) ([]float64, error) {
	before := make([]time.Duration, len(pids))
	for n, pid := range pids {
		var err error
		if before[n], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(during):
	}
	shares := make([]float64, len(pids))
	for n, pid := range pids {
		after, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		shares[n] = 100 * float64(after-before[n]) / float64(during)
	}
	return shares, nil
}
