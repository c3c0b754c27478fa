package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// saveRecord writes a container's state file so that a reader sees the old or the new one.
func saveRecord(rec wire.Container) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	name := "c/" + rec.ID + ".json"
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// startTicks reads when a process started; with its number it is unique until the next boot.
func startTicks(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndexByte(data, ')') // the name before it may hold anything
	if i < 0 {
		return 0, errors.New("unreadable process state")
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 20 {
		return 0, errors.New("unreadable process state")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// setSysctl writes one setting of the pod's namespaces.
func setSysctl(key, value string) error {
	if strings.Contains(key, "..") || strings.HasPrefix(key, "/") {
		return fmt.Errorf("name %q is not allowed", key)
	}
	return writeFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value))
}

// writeFile writes in one call to a file that is there; os.WriteFile would make it.
func writeFile(name string, data []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, data); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
