// Package server is the one place where components and adapters meet: it starts them in order,
// joins their seams and stops them in reverse. One file a part.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	clientgo "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/unpack"
	"ebb.dev/ebb/internal/component/admission"
	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/component/jobs"
	"ebb.dev/ebb/internal/component/keyring"
	"ebb.dev/ebb/internal/component/metricsapi/external"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/proxy"
	"ebb.dev/ebb/internal/component/roster"
	"ebb.dev/ebb/internal/component/scaler"
	"ebb.dev/ebb/internal/domain/render/horizontal"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/heap"
	"ebb.dev/ebb/internal/platform/image"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/scales"
	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/telemetry"
	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

// Version is ebb's, stamped at link time.
var Version = "devel"

// Commit is that of ebb's source, stamped at link time.
var Commit = ""

// systemNamespace holds what ebb itself shows in the cluster.
const systemNamespace = "ebb-system"

// An orderly stop gives requests in flight and then pods, whose own grace periods may be longer, some
// time to end; what is left then is cut off. stopPatience bounds all of it.
const (
	requestPatience = 20 * time.Second
	podPatience     = 40 * time.Second
	stopPatience    = 90 * time.Second
)

// Options are what a user may choose for `ebb up`.
type Options struct {
	Folder    config.Folder
	HTTP      string // gateway's address on this machine
	HTTPS     string // gateway's address for TLS; "" to have it follow HTTP
	API       string // Kubernetes API's address on this machine
	AuthFiles string // folder that filePath of TriggerAuthentications is relative to; "" refuses it
	CADir     string // folder of further certificates to trust in sources of work; "" for none
	// Keda is what KEDA would read from its environment, TokenMode which tokens of service accounts may leave
	// the cluster: TokensEnforced or TokensLegacy.
	Keda      config.Keda
	TokenMode string
	// HighCardinality has KEDA's histograms tell objects apart.
	HighCardinality bool
	Verbose         bool
	Out             io.Writer // progress and the log, when attached
}

// Server is a running ebb.
type Server struct {
	options         Options
	folder          config.Folder
	id              config.Identity
	log             *slog.Logger
	metricsRegistry *prometheus.Registry
	started         time.Time

	statusMu sync.Mutex // guards status and its file
	status   Status

	stopsMu sync.Mutex // guards stops
	stops   []stop     // in order of start
	failed  chan error

	net        *netns.Net
	images     *image.Source
	unpacked   atomic.Pointer[unpack.Store] // nil until the runtime starts
	runtime    *container.Runtime
	cluster    *cluster.Cluster
	admission  admission.Handler
	measured   measured
	triggered  atomic.Pointer[external.Values] // nil until triggers are asked
	rest       *rest.Config
	client     clientgo.Interface
	fleet      *fleet.Fleet
	demand     *demand.Book
	gateway    *gateway.Gateway
	roster     *roster.Roster
	routes     *routes
	autoscaler *autoscaler.Autoscaler
	informers  informers.SharedInformerFactory
	replicas   *scales.Scales
	scaled     *scaler.Engine // of ScaledObjects
	jobs       *jobs.Engine   // of ScaledJobs
	node       *node.Node
	observed   observed
	keda       *keda.Metrics // by KEDA's names

	memory     *heap.Pacer
	gate       kube.Gate     // closed while requests wait for a first instance
	defined    chan struct{} // closed when the cluster has ebb's kinds
	published  chan struct{} // closed when the gateway has its first route table
	firstTable sync.Once

	authority *authority.Keeper
	keys      *keyring.Ring

	onPort80, onPort443 net.Listener // nil where somebody else has it
	outer, outerTLS     *proxy.Inbox // the gateway's own Services
	inner, innerTLS     *proxy.Inbox
}

// stop ends one part.
type stop struct {
	name string
	end  func(context.Context) error
}

// Up starts everything and returns once it is ready. What was started is stopped when a later part
// fails or ctx ends.
func Up(ctx context.Context, o Options) (*Server, error) {
	o.HTTPS = o.httpsAddress()
	if err := Preflight(o); err != nil {
		return nil, err
	}
	held, err := lock(o.Folder)
	if err != nil {
		return nil, err
	}
	id, err := config.LoadIdentity(o.Folder)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	memory := heap.New()
	memory.Pace(true)
	log := telemetry.NewLogger(os.Stderr, o.Verbose)
	telemetry.AdoptLibraries(log, o.Verbose)
	s := &Server{
		options: o, folder: o.Folder, id: id, log: log, metricsRegistry: prometheus.NewRegistry(), started: time.Now(),
		failed: make(chan error, 1), fleet: fleet.New(), demand: demand.NewBook(), published: make(chan struct{}), defined: make(chan struct{}), memory: memory, replicas: scales.New(),
		keda: keda.New(keda.Options{Version: horizontal.Version, Commit: Commit, HighCardinality: o.HighCardinality}),
	}
	s.onStop("memory", func(context.Context) error { memory.Stop(); return nil })
	s.status = Status{Data: string(o.Folder), State: StateStarting, PID: os.Getpid(), Started: s.started, Kubeconfig: o.Folder.Kubeconfig()}
	s.onStop("lock", func(context.Context) error { return errors.Join(os.Remove(o.Folder.Status()), held.Close()) })
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	memory.Pace(false)
	return s, s.say(func(st *Status) {
		st.State, st.Step, st.Took = StateReady, "", time.Since(s.started)
	})
}

// start runs the parts' starts; what can go side by side does.
func (s *Server) start(ctx context.Context) error {
	for _, p := range []struct {
		step  string
		begin func(context.Context) error
	}{
		{"making the network", s.startNetwork},
		{"starting Kubernetes", s.startFoundations},
		{"starting the node and the controllers", s.startWorkers},
		{"opening the gateway", s.startListeners},
	} {
		if err := s.say(func(st *Status) { st.Step = p.step }); err != nil {
			return err
		}
		if err := p.begin(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.step, err)
		}
	}
	return nil
}

// onStop remembers how to end what was just started.
func (s *Server) onStop(name string, end func(context.Context) error) {
	s.stopsMu.Lock()
	defer s.stopsMu.Unlock()
	s.stops = append(s.stops, stop{name, end})
}

// background runs a part until the server stops; an end of its own is a failure of all.
func (s *Server) background(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		s.fail(fmt.Errorf("running %s: %w", name, err))
	}()
	s.onStop(name, func(ctx context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("stopping %s: %w", name, ctx.Err())
		}
	})
}

func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Status tells the state as the status file has it.
func (s *Server) Status() Status {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	return s.status
}

// say changes the status and writes it out.
func (s *Server) say(change func(*Status)) error {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	change(&s.status)
	return config.WriteJSON(s.folder.Status(), s.status)
}

// Wait runs until ctx ends or a part fails, then stops everything, keeping state.
func (s *Server) Wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(s.options.Out, "stopping: requests and pods get their time to end (a second signal ends it at once; `ebb down` cleans up then)")
	case err = <-s.failed:
		s.log.Error("stopping because a part failed", "error", err)
	case err = <-s.cluster.Done():
		s.log.Error("stopping because the control plane failed", "error", err)
	}
	return errors.Join(err, s.stop())
}

// stop ends the parts, last started first.
func (s *Server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	err := s.say(func(st *Status) { st.State = StateStopping })
	for _, part := range s.takeStops() {
		began := time.Now()
		if e := part.end(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("stopping %s: %w", part.name, e))
		}
		s.log.Debug("stopped", "part", part.name, "took", time.Since(began))
	}
	return err
}

// within gives the end of a part its own share of time; running out of it is told, not a failure.
func (s *Server) within(patience time.Duration, what string, end func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err := end(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			s.log.Warn("cutting off what did not end in time", "what", what, "after", patience)
			return nil
		}
		return err
	}
}

// takeStops hands out what is to be ended, last started first, once.
func (s *Server) takeStops() []stop {
	s.stopsMu.Lock()
	defer s.stopsMu.Unlock()
	out := s.stops
	s.stops = nil
	slices.Reverse(out)
	return out
}
