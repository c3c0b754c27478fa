//go:build pins

package main

// What is built but not linked here, so that go.mod and go.sum know all of it.
import (
	_ "github.com/cloudevents/sdk-go/v2"
	_ "github.com/joho/godotenv"
	_ "github.com/kedacore/keda/v2/pkg/generated/clientset/versioned/typed/keda/v1alpha1"
	_ "github.com/kedacore/keda/v2/pkg/metricscollector"
	_ "github.com/prometheus/client_model/go"
	_ "github.com/prometheus/common/expfmt"
	_ "github.com/stretchr/testify/assert"
	_ "gopkg.in/yaml.v3"
	_ "k8s.io/client-go/tools/remotecommand"
	_ "sigs.k8s.io/controller-runtime/pkg/client/config"
)
