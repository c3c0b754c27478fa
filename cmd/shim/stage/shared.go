package stage

import (
	"fmt"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// SharedMemory is the folder, relative to the guardian's, of the memory a pod's containers share.
const SharedMemory = "shm"

// MountShared makes the pod's shared memory in the guardian's own mount namespace, so that it ends
// with the pod and never shows on the node.
func MountShared() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separating mounts: %w", err)
	}
	options := []wire.Option{{Key: "size", Value: "64m"}, {Key: "mode", Value: "1777"}}
	tree, err := newFS("tmpfs", options, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", unix.AT_FDCWD, SharedMemory, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
