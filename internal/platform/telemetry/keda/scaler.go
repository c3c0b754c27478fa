package keda

// scalers are how KEDA calls triggers that have no name: by what it makes of their types.
var scalers = map[string]string{
	"activemq":               "activeMQScaler",
	"apache-kafka":           "apacheKafkaScaler",
	"artemis-queue":          "artemisScaler",
	"beanstalkd":             "BeanstalkdScaler",
	"cpu":                    "cpuMemoryScaler",
	"cron":                   "cronScaler",
	"etcd":                   "etcdScaler",
	"external":               "externalScaler",
	"external-push":          "externalPushScaler",
	"graphite":               "graphiteScaler",
	"kafka":                  "kafkaScaler",
	"kubernetes-resource":    "kubernetesResourceScaler",
	"kubernetes-workload":    "kubernetesWorkloadScaler",
	"memory":                 "cpuMemoryScaler",
	"metrics-api":            "metricsAPIScaler",
	"mongodb":                "mongoDBScaler",
	"mysql":                  "mySQLScaler",
	"nats-jetstream":         "natsJetStreamScaler",
	"nsq":                    "nsqScaler",
	"postgresql":             "postgreSQLScaler",
	"prometheus":             "prometheusScaler",
	"rabbitmq":               "rabbitMQScaler",
	"redis":                  "redisScaler",
	"redis-cluster":          "redisScaler",
	"redis-cluster-streams":  "redisStreamsScaler",
	"redis-sentinel":         "redisScaler",
	"redis-sentinel-streams": "redisStreamsScaler",
	"redis-streams":          "redisStreamsScaler",
}

// Scaler is the label scaler of a trigger: its name if it has one.
func Scaler(name, kind string) string {
	if name != "" {
		return name
	}
	if known, ok := scalers[kind]; ok {
		return known
	}
	return kind
}
