package cluster

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedulerconfig "k8s.io/kubernetes/cmd/kube-scheduler/app/config"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// unschedulableFor is after how long a pod that fits nowhere is tried again without any event.
const unschedulableFor = 5 * time.Minute

// runScheduler runs kube-scheduler until ctx ends.
func (c *Cluster) runScheduler(ctx context.Context) error {
	defaults, err := latest.Default()
	if err != nil {
		return fmt.Errorf("preparing the scheduler: %w", err)
	}
	defaults.LeaderElection.LeaderElect = false
	kubeconfig := c.clientConfig(c.creds.scheduler)
	protobuf := rest.CopyConfig(kubeconfig)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(protobuf, "kube-scheduler"))
	if err != nil {
		return fmt.Errorf("making the scheduler's client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(kubeconfig)
	if err != nil {
		return fmt.Errorf("making the scheduler's client: %w", err)
	}
	cfg := schedulerconfig.Config{
		ComponentConfig:                   *defaults,
		Client:                            client,
		KubeConfig:                        protobuf,
		InformerFactory:                   scheduler.NewInformerFactory(client, 0),
		DynInformerFactory:                dynamicinformer.NewFilteredDynamicSharedInformerFactory(dyn, 0, "", nil),
		EventBroadcaster:                  events.NewEventBroadcasterAdapterWithContext(ctx, client),
		PodMaxInUnschedulablePodsDuration: unschedulableFor,
		ComponentGlobalsRegistry:          compatibility.DefaultComponentGlobalsRegistry,
	}
	completed := cfg.Complete()
	sched, err := newScheduler(ctx, &completed)
	if err != nil {
		return fmt.Errorf("making the scheduler: %w", err)
	}
	// Its configuration is registered under this name in the process; another start needs it free.
	defer configz.Delete("componentconfig")
	err = app.Run(ctx, &completed, sched)
	if ctx.Err() != nil {
		return nil // Run calls every end an error
	}
	return err
}

func newScheduler(ctx context.Context, cc *schedulerconfig.CompletedConfig) (*scheduler.Scheduler, error) {
	recorders := profile.RecorderFactory(func(name string) events.EventRecorderLogger { return cc.EventBroadcaster.NewRecorder(name) })
	sched, err := scheduler.New(ctx, cc.Client, cc.InformerFactory, cc.DynInformerFactory, recorders,
		scheduler.WithComponentConfigVersion(cc.ComponentConfig.APIVersion),
		scheduler.WithKubeConfig(cc.KubeConfig),
		scheduler.WithProfiles(cc.ComponentConfig.Profiles...),
		scheduler.WithPercentageOfNodesToScore(cc.ComponentConfig.PercentageOfNodesToScore),
		scheduler.WithPodMaxBackoffSeconds(cc.ComponentConfig.PodMaxBackoffSeconds),
		scheduler.WithPodInitialBackoffSeconds(cc.ComponentConfig.PodInitialBackoffSeconds),
		scheduler.WithPodMaxInUnschedulablePodsDuration(cc.PodMaxInUnschedulablePodsDuration),
		scheduler.WithExtenders(cc.ComponentConfig.Extenders...),
		scheduler.WithParallelism(cc.ComponentConfig.Parallelism),
	)
	return sched, err
}
