package trigger_test

import (
	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/platform/kube/object"
)

var _ trigger.Objects = (*object.Cluster)(nil)
