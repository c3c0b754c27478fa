package stats

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"

	v1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Usage serves the resource metrics in Prometheus' text form.
type Usage struct{ Collector *Collector }

// ServeHTTP implements http.Handler.
func (u Usage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, err := u.Collector.Summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	out := bufio.NewWriter(w)
	writeUsage(out, s)
	_ = out.Flush() // fails only when the client has gone
}

// point is one value of a metric.
type point struct {
	labels string
	value  float64
	at     int64 // ms; 0 for none
}

func writeUsage(w io.Writer, s *v1alpha1.Summary) {
	seconds := func(c *v1alpha1.CPUStats) float64 { return float64(*c.UsageCoreNanoSeconds) / 1e9 }
	var cpu, memory, start, podCPU, podMemory []point
	for i := range s.Pods {
		p := &s.Pods[i]
		pod := fmt.Sprintf("namespace=%q,pod=%q", p.PodRef.Namespace, p.PodRef.Name)
		at := p.CPU.Time.UnixMilli()
		podCPU = append(podCPU, point{pod, seconds(p.CPU), at})
		podMemory = append(podMemory, point{pod, float64(*p.Memory.WorkingSetBytes), at})
		for j := range p.Containers {
			c := &p.Containers[j]
			labels := fmt.Sprintf("container=%q,%s", c.Name, pod)
			cpu = append(cpu, point{labels, seconds(c.CPU), at})
			memory = append(memory, point{labels, float64(*c.Memory.WorkingSetBytes), at})
			start = append(start, point{labels, float64(c.StartTime.UnixMilli()) / 1000, 0})
		}
	}
	at := s.Node.CPU.Time.UnixMilli()
	metric(w, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds", cpu)
	metric(w, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", memory)
	metric(w, "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", start)
	metric(w, "node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", []point{{"", seconds(s.Node.CPU), at}})
	metric(w, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", []point{{"", float64(*s.Node.Memory.WorkingSetBytes), at}})
	metric(w, "pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", podCPU)
	metric(w, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", podMemory)
	metric(w, "resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", []point{{}})
}

func metric(w io.Writer, name, kind, help string, points []point) {
	if len(points) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	for _, p := range points {
		labels, at := "", ""
		if p.labels != "" {
			labels = "{" + p.labels + "}"
		}
		if p.at != 0 {
			at = " " + strconv.FormatInt(p.at, 10)
		}
		_, _ = fmt.Fprintf(w, "%s%s %s%s\n", name, labels, strconv.FormatFloat(p.value, 'g', -1, 64), at)
	}
}
