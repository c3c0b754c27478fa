package guard

import (
	"errors"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

var errNoOCI = errors.New("OCI runtimes are not wired yet")

func (g *guard) launchOCI(*wire.Conn, *container, *fileQueue) (<-chan exit, error) {
	return nil, errNoOCI
}

func (g *guard) execOCI(*wire.Conn, *container, wire.Exec, *fileQueue) (int, <-chan exit, error) {
	return 0, nil, errNoOCI
}
