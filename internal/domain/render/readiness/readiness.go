// Package readiness is what a Service's readiness probes ask beyond Kubernetes' fields.
//
// Knative knows a probe without period, whose attempts are short and close together, and checks
// besides a command that the application listens. A pod has no field for either, so an annotation
// carries it to the node that runs the probes; other nodes run the plain probe.
package readiness

import (
	"encoding/json"
	"fmt"
)

// Annotation is the pod's annotation: a JSON object of Extra by container.
const Annotation = "ebb.dev/readiness"

// Extra is what holds for one container's readiness probe.
type Extra struct {
	// Aggressive says that the probe has no period of its own.
	Aggressive bool `json:"aggressive,omitempty"`
	// Port must accept connections too, if it is not 0.
	Port int32 `json:"port,omitempty"`
	// HTTP2 says that an HTTP probe tries HTTP/2 without TLS first.
	HTTP2 bool `json:"http2,omitempty"`
}

// Encode returns the annotation's value, which is empty when nothing is asked of any container.
func Encode(containers map[string]Extra) (string, error) {
	asked := make(map[string]Extra, len(containers))
	for name, extra := range containers {
		if extra != (Extra{}) {
			asked[name] = extra
		}
	}
	if len(asked) == 0 {
		return "", nil
	}
	raw, err := json.Marshal(asked)
	if err != nil {
		return "", fmt.Errorf("writing the annotation %s: %w", Annotation, err)
	}
	return string(raw), nil
}

// Of reads what is asked of a container's probe from its pod's annotations. A value that cannot be
// read asks for nothing.
func Of(annotations map[string]string, container string) Extra {
	value, ok := annotations[Annotation]
	if !ok {
		return Extra{}
	}
	var containers map[string]Extra
	if err := json.Unmarshal([]byte(value), &containers); err != nil {
		return Extra{}
	}
	return containers[container]
}
