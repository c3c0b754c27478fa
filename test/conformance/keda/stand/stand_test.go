package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
)

func TestParseFlags(t *testing.T) {
	words, flags := parseFlags([]string{"context", "save", "local", "--server", "nats://x", "--select", "-f", "--max-msgs=-1"})
	if diff := cmp.Diff([]string{"context", "save", "local"}, words); diff != "" {
		t.Errorf("words, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"server": "nats://x", "select": "", "f": "", "max-msgs": "-1"}, flags); diff != "" {
		t.Errorf("flags, -want +got:\n%s", diff)
	}
}

func TestRedisAddresses(t *testing.T) {
	cases := map[string]struct {
		env  map[string]string
		want []string
	}{
		"whole":             {map[string]string{"REDIS_ADDRESSES": "a:1, b:2"}, []string{"a:1", "b:2"}},
		"the port is known": {map[string]string{"REDIS_ADDRESS": "a"}, []string{"a:6379"}},
		"in parts":          {map[string]string{"REDIS_HOSTS": "a,b", "REDIS_PORTS": "1,2"}, []string{"a:1", "b:2"}},
		"a port is missing": {map[string]string{"REDIS_HOSTS": "a,b", "REDIS_PORTS": "1"}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.env {
				t.Setenv(key, value)
			}
			if diff := cmp.Diff(c.want, redisAddresses()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTargetsHaveLabels(t *testing.T) {
	read := func(text string) (all []discovered) {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	services := read(`[{"metadata":{"name":"web","namespace":"b","annotations":{"prometheus.io/scrape":"false"}}},
		{"metadata":{"name":"web","namespace":"a","labels":{"app":"x"},"annotations":{"prometheus.io/scrape":"true"}}}]`)
	endpoints := read(`[{"metadata":{"name":"web","namespace":"a"},"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n"}],"ports":[{"name":"http","port":8080}]}]}]`)
	if diff := cmp.Diff([]group{{Targets: []string{"10.0.0.1:8080"}, Labels: map[string]string{
		"__meta_kubernetes_namespace": "a", "__meta_kubernetes_service_name": "web", "__meta_kubernetes_service_label_app": "x",
		"__meta_kubernetes_service_annotation_prometheus_io_scrape": "true",
		"__meta_kubernetes_endpoint_port_name":                      "http", "__meta_kubernetes_pod_node_name": "n",
	}}}, groups(services, endpoints)); diff != "" {
		t.Errorf("targets, -want +got:\n%s", diff)
	}
}

func TestExternalScalerTellsValues(t *testing.T) {
	of := &pb.ScaledObjectRef{ScalerMetadata: map[string]string{"metricThreshold": "5", "metricValue": "7"}}
	cases := map[string]struct {
		scaler    *external
		want      int64
		wantFloat float64
	}{
		"a set one":         {&external{value: 3, float: 3.5}, 3, 3.5},
		"a trigger's own":   {&external{old: true, value: 3}, 7, 0},
		"never a negative":  {&external{value: -3, float: -1}, 0, 0},
		"nothing set is 0":  {&external{}, 0, 0},
		"old ones know int": {&external{old: true, float: 2.5}, 7, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := c.scaler.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: of, MetricName: metric})
			if err != nil {
				t.Fatal(err)
			}
			v := got.GetMetricValues()[0]
			if v.GetMetricValue() != c.want || v.GetMetricValueFloat() != c.wantFloat {
				t.Errorf("got %d and %g, want %d and %g", v.GetMetricValue(), v.GetMetricValueFloat(), c.want, c.wantFloat)
			}
		})
	}
}
