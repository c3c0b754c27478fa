package differential

import "sync"

// A difference is one that is meant, and the comparisons in which it shows.
type difference struct {
	why  string
	rows []string // names of tests
}

// deliberate returns why ebb differs from KEDA, by the names of comparisons. Each is checked to differ
// still.
var deliberate = sync.OnceValue(func() map[string]string {
	reasons := map[string]string{}
	for _, d := range differences {
		for _, row := range d.rows {
			reasons[row] = d.why
		}
	}
	return reasons
})

var differences = []difference{
	{"an external scaler that tells no value of a metric has none waiting: without a reading nobody would hear that it is active", []string{
		"TestExternal/external/no_values", "TestExternal/external/three_metrics",
		"TestExternal/external-push/no_values", "TestExternal/external-push/three_metrics",
	}},
	{"KEDA promises XML, but its decoder fails on every document", []string{
		"TestMetricsAPI/xml_5.0", "TestMetricsAPI/xml_5.1", "TestMetricsAPI/xml_5.7", "TestMetricsAPI/xml_5.11", "TestMetricsAPI/xml_5.12",
		"TestMetricsAPI/xml_5.14", "TestMetricsAPI/xml_5.15", "TestMetricsAPI/xml_5.17", "TestMetricsAPI/xml_5.18", "TestMetricsAPI/xml_6.0",
	}},
	{"a Service may be called service.namespace, and have a port: KEDA takes the port for a part of the namespace", []string{
		"TestMetricsAPI/of_a_Service/short", "TestMetricsAPI/of_a_Service/with_a_user", "TestMetricsAPI/of_a_Service/no_path,_but_a_part",
	}},
	{"a URL may have its quotes escaped: KEDA panics", []string{
		"TestArtemis/restApiTemplate=http://server/console/jolokia/read/org.apache.activemq.artemis:broker=%22main%22,component=addresses,address=%22work%22,subcomponent=queues,routing-type=%22anycast%22,queue=%22jobs%22/MessageCount",
	}},
	{"a namespace is escaped: KEDA's query is cut short by a space", []string{"TestPrometheus/namespace=a_b"}},
	{"a point without a value is none: KEDA panics", []string{
		"TestGraphite/answers/answer_12_with_status_200", "TestGraphite/answers/answer_12_with_status_201", "TestGraphite/answers/answer_12_with_status_400",
		"TestGraphite/answers/answer_12_with_status_404", "TestGraphite/answers/answer_12_with_status_500",
	}},
	{"a queue's name is escaped as a part of a path, in which + is no space", []string{"TestRabbitMQ/by_the_management_API/an_odd_name"}},
	{"members of today's consumers count: KEDA's client cannot read what they say of themselves and takes them for absent", []string{
		"TestKafka/apache-kafka/topics_of_a_group_with_members_of_today",
	}},
	{"lag lasts once a group has stood still for 10 s, not for one poll: ebb reads much more often than consumers commit", []string{
		"TestKafka/kafka/lag_that_lasts,_at_once", "TestKafka/apache-kafka/lag_that_lasts,_at_once",
	}},
}
