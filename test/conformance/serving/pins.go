//go:build pins

package main

// What is built but not linked here, so that go.mod and go.sum know all of it. Suites that consist of
// tests only cannot be imported; they need no more than these.
import (
	_ "github.com/kelseyhightower/envconfig"
	_ "knative.dev/serving/test/conformance/api/v1"
	_ "knative.dev/serving/test/conformance/runtime"
	_ "knative.dev/serving/test/e2e"
	_ "knative.dev/serving/test/test_images/grpc-ping"
	_ "knative.dev/serving/test/test_images/hellohttp2"
	_ "knative.dev/serving/test/test_images/runtime"
	_ "knative.dev/serving/test/test_images/wsserver"
)
