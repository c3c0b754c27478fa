// Command shim is the small program ebb runs beside and inside pods: the guardian that keeps a
// pod, the stage that becomes a container's program, and process 1 of a shared process namespace.
//
// It is built by internal/adapter/runtime/container/shim/build and embedded in ebb, because the
// start of the big binary would cost more than the container. Standard library and x/sys only.
package main

import (
	"os"
	"runtime"

	"ebb.dev/ebb/cmd/shim/guard"
	"ebb.dev/ebb/cmd/shim/stage"
)

// inherited is the descriptor every role gets: a socket, or a pipe to close when ready.
const inherited = 3

// init keeps main on the process's first thread: a stage executes the program from there.
func init() { runtime.LockOSThread() }

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch role {
	case "guard":
		runtime.UnlockOSThread()
		os.Exit(guard.Main(inherited))
	case "stage":
		os.Exit(stage.Main(inherited))
	case "pause":
		os.Exit(stage.Pause(inherited))
	case "idle":
		os.Exit(stage.Idle())
	}
	os.Stderr.WriteString("this program is started by ebb only\n")
	os.Exit(2)
}
