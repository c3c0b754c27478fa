package container

import (
	"context"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(context.Context, string, runtime.ExecSpec) (int, error) { return 0, runtime.ErrUnsupported }
func (r *Runtime) Attach(context.Context, string, runtime.Streams) error { return runtime.ErrUnsupported }
