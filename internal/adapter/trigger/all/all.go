// Package all is the list of triggers that are built in.
package all

import (
	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/activemq"
	"ebb.dev/ebb/internal/adapter/trigger/artemis"
	"ebb.dev/ebb/internal/adapter/trigger/beanstalkd"
	"ebb.dev/ebb/internal/adapter/trigger/cron"
	"ebb.dev/ebb/internal/adapter/trigger/etcd"
	"ebb.dev/ebb/internal/adapter/trigger/external"
	"ebb.dev/ebb/internal/adapter/trigger/graphite"
	"ebb.dev/ebb/internal/adapter/trigger/http"
	"ebb.dev/ebb/internal/adapter/trigger/kafka"
	"ebb.dev/ebb/internal/adapter/trigger/kubernetes"
	"ebb.dev/ebb/internal/adapter/trigger/metricsapi"
	"ebb.dev/ebb/internal/adapter/trigger/mongodb"
	"ebb.dev/ebb/internal/adapter/trigger/mysql"
	"ebb.dev/ebb/internal/adapter/trigger/nats"
	"ebb.dev/ebb/internal/adapter/trigger/nsq"
	"ebb.dev/ebb/internal/adapter/trigger/postgresql"
	"ebb.dev/ebb/internal/adapter/trigger/prometheus"
	"ebb.dev/ebb/internal/adapter/trigger/rabbitmq"
	"ebb.dev/ebb/internal/adapter/trigger/redis"
	"ebb.dev/ebb/internal/adapter/trigger/resource"
	"ebb.dev/ebb/internal/adapter/trigger/workload"
)

// Builders returns the constructor of each built-in type, by the name users write.
func Builders() map[string]trigger.Build {
	return map[string]trigger.Build{
		"activemq":               activemq.New,
		"apache-kafka":           kafka.NewApache,
		"artemis-queue":          artemis.New,
		"beanstalkd":             beanstalkd.New,
		"cpu":                    resource.NewCPU,
		"cron":                   cron.New,
		"etcd":                   etcd.New,
		"external":               external.New,
		"external-push":          http.Or(external.NewPush),
		"graphite":               graphite.New,
		"kafka":                  kafka.New,
		"kubernetes-resource":    kubernetes.New,
		"kubernetes-workload":    workload.New,
		"memory":                 resource.NewMemory,
		"metrics-api":            metricsapi.New,
		"mongodb":                mongodb.New,
		"mysql":                  mysql.New,
		"nats-jetstream":         nats.New,
		"nsq":                    nsq.New,
		"postgresql":             postgresql.New,
		"prometheus":             prometheus.New,
		"rabbitmq":               rabbitmq.New,
		"redis":                  redis.New,
		"redis-cluster":          redis.NewCluster,
		"redis-cluster-streams":  redis.NewClusterStreams,
		"redis-sentinel":         redis.NewSentinel,
		"redis-sentinel-streams": redis.NewSentinelStreams,
		"redis-streams":          redis.NewStreams,
	}
}
