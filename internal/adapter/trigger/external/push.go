package external

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// again is how often news that a trigger is still active counts: some servers send it several times a
// second.
const again = time.Second

// settled is when a server surely listens for news of its own, after a stream was opened.
const settled = 250 * time.Millisecond

// A pusher is a source whose server says when work comes.
//
// The word of a server that work came counts once, as upstream, even if the same server denies it
// when it is asked a moment later. That there is none any more is a matter of Read.
type pusher struct {
	*source
	job       bool // upstream's ScaledJobs ignore what is pushed
	announced atomic.Bool
	streamed  atomic.Bool // said is what the server streams, as long as it does
}

// NewPush makes a trigger of type external-push.
func NewPush(c trigger.Config) (trigger.Source, error) {
	s, err := build(c)
	if err != nil {
		return nil, err
	}
	return &pusher{source: s, job: c.ScalableObjectType == "ScaledJob"}, nil
}

// Specs implements trigger.Source: it asks the server, unless that tells them by itself.
func (p *pusher) Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error) {
	if p.streamed.Load() {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.specs(p.said), nil
	}
	return p.source.Specs(ctx)
}

// Read implements trigger.Source.
func (p *pusher) Read(ctx context.Context) ([]trigger.Reading, error) {
	readings, err := p.source.Read(ctx)
	if err != nil || !p.announced.Swap(false) {
		return readings, err
	}
	for i := range readings {
		readings[i].Active = true
	}
	return readings, nil
}

// Watch implements trigger.Pusher.
func (p *pusher) Watch(_ trigger.Mode, wake func()) (stop func()) {
	return p.link.hub.Watch(interest{by: p}, wake)
}

// WatchSpecs implements trigger.Respecifier.
func (p *pusher) WatchSpecs(changed func()) (stop func()) {
	return p.link.hub.Watch(interest{by: p, targets: true}, changed)
}

// An interest is what is watched: whether there is work, or which targets a source has.
type interest struct {
	by      *pusher
	targets bool
}

// stream wakes by what the server sends until one of them ends it.
func (i interest) stream(ctx context.Context, client pb.ExternalScalerClient, wake func(), wait grpc.CallOption) error {
	var err error
	if i.targets {
		err = i.by.hearTargets(ctx, client, wake, wait)
	} else {
		err = i.by.hearActivity(ctx, client, wake, wait)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (p *pusher) hearActivity(ctx context.Context, client pb.ExternalScalerClient, wake func(), wait grpc.CallOption) error {
	stream, err := client.StreamIsActive(ctx, p.ref, wait)
	if err != nil {
		return err
	}
	wake() // what came before went unheard
	var (
		active = true                          // so that the first to be said is news
		at     time.Time                       // when it was last said to be active, and that counted
		late   = time.AfterFunc(settled, wake) // of a wake for what was said since
	)
	defer func() {
		if late != nil {
			late.Stop()
		}
	}()
	for {
		news, err := stream.Recv()
		if err != nil {
			return err
		}
		since := time.Since(at)
		switch {
		case !news.GetResult() && active:
			wake()
		case news.GetResult() && (!active || since >= again):
			at, late = time.Now(), nil
			p.announced.Store(!p.job)
			wake()
		case news.GetResult() && late == nil:
			late = time.AfterFunc(again-since, wake)
		}
		active = news.GetResult()
	}
}

func (p *pusher) hearTargets(ctx context.Context, client pb.ExternalScalerClient, changed func(), wait grpc.CallOption) error {
	stream, err := client.StreamMetricSpec(ctx, p.ref, wait)
	if err != nil {
		return err
	}
	defer p.streamed.Store(false)
	for {
		said, err := stream.Recv()
		if err != nil {
			return err
		}
		p.mu.Lock()
		differs := !proto.Equal(said, p.said)
		p.said = said
		p.mu.Unlock()
		p.streamed.Store(true)
		if differs {
			changed()
		}
	}
}
