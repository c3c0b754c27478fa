package main

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strconv"
)

// discover tells the pod's Prometheus of targets as Kubernetes has them.
func discover(context.Context, []string) error {
	a, err := newAPI()
	if err != nil {
		return err
	}
	return serve("127.0.0.1:9989", a.targets())
}

// group is a target and its labels, as Prometheus takes it.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// targets answers for each role. Those besides endpoints have none: no test looks at them.
func (a *api) targets() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, groups []group) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(groups)
	}
	mux.HandleFunc("GET /{role}", func(w http.ResponseWriter, _ *http.Request) { answer(w, []group{}) })
	mux.HandleFunc("GET /endpoints", func(w http.ResponseWriter, r *http.Request) {
		var services, endpoints struct{ Items []discovered }
		for path, into := range map[string]any{"/api/v1/services": &services, "/api/v1/endpoints": &endpoints} {
			if _, err := a.do(r.Context(), http.MethodGet, path, nil, into); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		answer(w, groups(services.Items, endpoints.Items))
	})
	return mux
}

// discovered is as much of a Service or of Endpoints as labels are made of.
type discovered struct {
	Metadata struct {
		Name, Namespace     string
		Labels, Annotations map[string]string
	}
	Subsets []struct {
		Addresses []struct{ IP, NodeName string }
		Ports     []struct {
			Name string
			Port int
		}
	}
}

func groups(services, endpoints []discovered) []group {
	all := []group{}
	for i := range endpoints {
		e := &endpoints[i].Metadata
		labels := map[string]string{"__meta_kubernetes_namespace": e.Namespace, "__meta_kubernetes_service_name": e.Name}
		for j := range services {
			s := &services[j].Metadata
			if s.Name != e.Name || s.Namespace != e.Namespace {
				continue
			}
			for key, value := range s.Labels {
				labels["__meta_kubernetes_service_label_"+clean(key)] = value
			}
			for key, value := range s.Annotations {
				labels["__meta_kubernetes_service_annotation_"+clean(key)] = value
			}
		}
		for _, subset := range endpoints[i].Subsets {
			for _, port := range subset.Ports {
				for _, address := range subset.Addresses {
					g := group{Targets: []string{net.JoinHostPort(address.IP, strconv.Itoa(port.Port))}, Labels: map[string]string{
						"__meta_kubernetes_endpoint_port_name": port.Name, "__meta_kubernetes_pod_node_name": address.NodeName,
					}}
					maps.Copy(g.Labels, labels)
					all = append(all, g)
				}
			}
		}
	}
	return all
}

var unfit = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// clean makes a key fit into a label's name.
func clean(key string) string { return unfit.ReplaceAllString(key, "_") }
