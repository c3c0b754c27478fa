package container

import (
	"context"
	"net"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func (r *Runtime) Dial(context.Context, string, uint16) (net.Conn, error) { return nil, runtime.ErrUnsupported }
func (r *Runtime) Stats(context.Context, string) (runtime.SandboxStats, error) { return runtime.SandboxStats{}, runtime.ErrUnsupported }
