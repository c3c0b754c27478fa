package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// source is where upstream's tests are.
const source = "github.com/kedacore/keda/v2/tests/"

// A suitePackage is one package of upstream's end-to-end tests.
type suitePackage struct {
	path  string // below source: its name in the ledger
	group string
	// alone packages change what others see and run when nothing else does.
	alone bool
	// exempt says why it need not pass.
	exempt string
}

// packages lists what is run: group A needs pods that become ready, B small programs we stand in for,
// C servers of the distribution.
func packages() []suitePackage {
	var all []suitePackage
	add := func(group string, paths ...string) {
		for _, p := range paths {
			all = append(all, suitePackage{path: p, group: group, exempt: exempt[p], alone: strings.HasPrefix(p, "sequential/")})
		}
	}
	add("A", "scalers/kubernetes_workload", "scalers/kubernetes_resource", "scalers/cron",
		"internals/cache_metrics", "internals/events", "internals/force_activation", "internals/idle_replicas",
		"internals/initial_delay_cooldownperiod", "internals/fallback", "internals/pause_scale_in",
		"internals/pause_scale_in_restore", "internals/pause_scale_out", "internals/pause_scaledobject",
		"internals/pause_scaledobject_explicitly", "internals/replicaset_scale", "internals/restore_original",
		"internals/value_metric_type", "internals/scaled_object_validation", "internals/scaled_job_validation",
		"internals/trigger_authentication_validation", "internals/subresource_scale",
		"sequential/broken_scaledobject_tolerancy")
	add("B", "scalers/metrics_api", "internals/custom_hpa_name", "internals/fallback/deployments",
		"internals/fallback/rollouts", "internals/file_based_auth", "internals/global_custom_ca",
		"internals/polling_cooldown_so", "internals/replica_update_so", "internals/scaling_modifiers",
		"internals/status_update", "internals/trigger_update_so", "internals/update_ta",
		"scalers/external_push_scaler", "scalers/external_push_scaler_old_proto", "scalers/external_scaler_so",
		"scalers/external_scaler_sj", "internals/min_replica_sj", "internals/pause_scaledjob",
		"internals/cloudevent_source")
	redis := []string{}
	for _, kind := range []string{"standalone", "sentinel", "cluster"} {
		for _, of := range []string{"lists", "streams_lag", "streams_length", "streams_pending_entries"} {
			redis = append(redis, "scalers/redis/redis_"+kind+"_"+of)
		}
	}
	add("C", redis...)
	for _, of := range []string{
		"amqp", "amqp_auth", "amqp_vhost", "http", "http_auth", "http_dget", "http_dpratio", "http_eqct",
		"http_regex", "http_regex_vhost", "http_vhost",
	} {
		add("C", "scalers/rabbitmq/rabbitmq_queue_"+of)
	}
	add("C", "scalers/postgresql/postgresql_standalone", "scalers/postgresql/postgresql_high_available", "scalers/mysql",
		"scalers/nats_jetstream/nats_jetstream_standalone", "scalers/nats_jetstream/nats_jetstream_cluster",
		"scalers/etcd/etcd_cluster", "scalers/etcd/etcd_cluster_auth", "scalers/prometheus",
		"scalers/prometheus/prometheus_oauth", "scalers/beanstalkd", "scalers/graphite", "scalers/nsq",
		"internals/scaling_strategies/eager_scaling_strategy", "internals/scaled_job_conditions")
	add("more", "internals/polling_irrelevant_so", "scalers/cpu", "scalers/memory", "sequential/prometheus_metrics")
	return all
}

// exempt tells why a package need not pass.
var exempt = map[string]string{
	"scalers/beanstalkd":            "Kubernetes' autoscaler keeps replicas for five minutes, and the test waits as long: seconds decide",
	"scalers/nsq":                   "both replicas that six messages need are made at once, while the test waits to see one alone, as KEDA adds the other later",
	"sequential/prometheus_metrics": "fourteen of its parts pass, the last three change a flag of the Deployment that KEDA's operator is, and here is none",
}

// selected returns the packages of groups (all if none is named) that match.
func selected(groups string, run *regexp.Regexp) ([]suitePackage, error) {
	all := packages()
	if groups != "" {
		wanted := strings.Split(groups, ",")
		for _, g := range wanted {
			if !slices.ContainsFunc(all, func(p suitePackage) bool { return p.group == g }) {
				return nil, fmt.Errorf("finding group %q: there are A, B, C and more", g)
			}
		}
		all = slices.DeleteFunc(all, func(p suitePackage) bool { return !slices.Contains(wanted, p.group) })
	}
	all = slices.DeleteFunc(all, func(p suitePackage) bool { return !run.MatchString(p.path) })
	if len(all) == 0 {
		return nil, fmt.Errorf("finding packages: none matches %q", run)
	}
	return all, nil
}
