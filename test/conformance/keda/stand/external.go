package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
)

// metric is the one that the external scaler provides.
const metric = "external-scaler-e2e-test"

// external is a scaler whose answers are set over HTTP. An old one knows whole numbers only.
type external struct {
	pb.UnimplementedExternalScalerServer

	old bool

	mu    sync.Mutex // guards the fields below
	value int64
	float float64
}

func externalScaler(ctx context.Context, old bool) error {
	e := &external{old: old}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":6000")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterExternalScalerServer(server, e)
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(listener) }()
	go func() { ended <- serve(":8080", e.settings()) }()
	return <-ended
}

func (e *external) settings() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	set := func(pattern string, fn func(string) error) {
		mux.HandleFunc("POST "+pattern, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if err := fn(r.PathValue("value")); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	set("/api/value/{value}", func(text string) (err error) {
		e.value, err = strconv.ParseInt(text, 10, 64)
		return err
	})
	set("/api/floatvalue/{value}", func(text string) (err error) {
		e.float, err = strconv.ParseFloat(text, 64)
		return err
	})
	return mux
}

// current is the value that was set; an old one is told by triggers what theirs is, where they say.
func (e *external) current(of *pb.ScaledObjectRef) (int64, error) {
	if text := of.GetScalerMetadata()["metricValue"]; e.old && text != "" {
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("invalid metric value - %w", err)
		}
		return value, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.value, nil
}

// IsActive tells whether the value is positive.
func (e *external) IsActive(_ context.Context, of *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	value, err := e.current(of)
	return &pb.IsActiveResponse{Result: value > 0}, err
}

// StreamIsActive tells it each second.
func (e *external) StreamIsActive(of *pb.ScaledObjectRef, stream pb.ExternalScaler_StreamIsActiveServer) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case <-tick.C:
			value, err := e.current(of)
			if err != nil {
				return err
			}
			if err := stream.Send(&pb.IsActiveResponse{Result: value > 0}); err != nil {
				return err
			}
		}
	}
}

// GetMetricSpec has the threshold of the trigger as target.
func (e *external) GetMetricSpec(_ context.Context, of *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	threshold, err := strconv.ParseFloat(of.GetScalerMetadata()["metricThreshold"], 64)
	if err != nil {
		return nil, fmt.Errorf("invalid value for metric threshold - %w", err)
	}
	spec := &pb.MetricSpec{MetricName: metric}
	if e.old {
		spec.TargetSize = int64(math.Round(threshold))
	} else {
		spec.TargetSizeFloat = threshold
	}
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{spec}}, nil
}

// GetMetrics has the values that are not negative.
func (e *external) GetMetrics(_ context.Context, in *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	if in.GetMetricName() != metric {
		return nil, fmt.Errorf("invalid metric name - %s", in.GetMetricName())
	}
	value, err := e.current(in.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	v := &pb.MetricValue{MetricName: metric, MetricValue: max(value, 0)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.old && e.float >= 0 {
		v.MetricValueFloat = e.float
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{v}}, nil
}
