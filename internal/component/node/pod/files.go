package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/component/node/logs"
	"ebb.dev/ebb/internal/component/node/pod/network"
)

const maxTerminationMessage = 4096

// files are the mounts every container gets: hosts, resolv.conf, hostname and the termination
// message, each left out where the pod mounts something of its own there.
func (p *Pod) files(j startJob, own []specs.Mount) ([]specs.Mount, error) {
	made, err := p.networkFiles(j)
	if err != nil {
		return nil, err
	}
	taken := func(path string) bool {
		return slices.ContainsFunc(own, func(m specs.Mount) bool { return m.Destination == path })
	}
	mode := "rw"
	if sc := j.spec.SecurityContext; sc != nil && sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem {
		mode = "ro"
	}
	var mounts []specs.Mount
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		if path := "/etc/" + name; !taken(path) {
			mounts = append(mounts, bind(path, made[name], mode))
		}
	}
	if path := terminationPath(j.spec); path != "" && !taken(path) {
		file, err := p.terminationFile(j)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, bind(path, file, "rw"))
	}
	if mode == "ro" {
		return p.imageVolumes(j, mounts, taken)
	}
	return mounts, nil
}

func bind(to, from, mode string) specs.Mount {
	return specs.Mount{Destination: to, Type: "bind", Source: from, Options: []string{"rbind", "rprivate", mode}}
}

// imageVolumes keeps the folders the image declares as volumes writable on a read-only root.
func (p *Pod) imageVolumes(j startJob, mounts []specs.Mount, taken func(string) bool) ([]specs.Mount, error) {
	for i, path := range j.image.Volumes {
		if taken(filepath.Clean(path)) {
			continue
		}
		dir := p.host.Volumes.Folder(p.uid, "image", j.spec.Name, strconv.Itoa(i))
		if err := errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777)); err != nil { //nolint:gosec // any user of the container writes here
			return nil, fmt.Errorf("making the image's volume: %w", err)
		}
		mounts = append(mounts, bind(filepath.Clean(path), dir, "rw"))
	}
	return mounts, nil
}

// networkFiles writes the pod's files and says where they are. They are the same for all containers,
// so that a restart writes the same bytes again.
func (p *Pod) networkFiles(j startJob) (map[string]string, error) {
	host, domain := network.Hostname(j.pod, p.host.NodeName, p.host.Cluster)
	hosts, err := network.Hosts(j.pod, p.ips(j.sandbox, j.pod), host, domain)
	if err != nil {
		return nil, err
	}
	resolver, err := network.Resolve(j.pod, p.host.Cluster)
	if err != nil {
		return nil, err
	}
	dir := p.host.Volumes.Folder(p.uid, "etc")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the pod's files: %w", err)
	}
	made := map[string]string{}
	for name, text := range map[string]string{"hosts": hosts, "resolv.conf": resolver.String(), "hostname": host + "\n"} {
		path := filepath.Join(dir, name)
		made[name] = path
		if have, err := os.ReadFile(path); err == nil && string(have) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // every user of the container reads these
			return nil, fmt.Errorf("writing the pod's %s: %w", name, err)
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
			return nil, fmt.Errorf("writing the pod's %s: %w", name, err)
		}
	}
	return made, nil
}

func terminationPath(c *corev1.Container) string {
	if c.TerminationMessagePath == "" {
		return ""
	}
	return filepath.Clean(c.TerminationMessagePath)
}

func (p *Pod) terminationName(container string, attempt int) string {
	return p.host.Volumes.Folder(p.uid, "containers", container, strconv.Itoa(attempt))
}

func (p *Pod) terminationFile(j startJob) (string, error) {
	path := p.terminationName(j.spec.Name, j.attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("making the termination message file: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil { //nolint:gosec // any user of the container writes it
		return "", fmt.Errorf("making the termination message file: %w", err)
	}
	return path, os.Chmod(path, 0o666) // whatever the umask
}

// terminationMessage reads what the container left as its last words; with FallbackToLogsOnError the
// end of its log stands in.
func (p *Pod) terminationMessage(c *container, failed bool) string {
	path := p.terminationName(c.spec.Name, c.attempt)
	text, err := readTail(path, maxTerminationMessage)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "Error on reading termination message: " + err.Error()
	}
	if text == "" && failed && c.spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError && p.host.LogTail != nil {
		const lines, bytes = 80, 2048
		if tail, err := p.host.LogTail(p.logPath(c.spec.Name, c.attempt), lines, bytes); err == nil {
			text = tail
		}
	}
	return text
}

func readTail(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := max(info.Size()-limit, 0)
	buf := make([]byte, min(info.Size(), limit))
	n, err := f.ReadAt(buf, from)
	if n == len(buf) {
		err = nil
	}
	return string(buf[:n]), err
}

// trimLogs removes the logs and messages of runs nobody can ask for any more.
func (p *Pod) trimLogs(container string, attempt int) {
	if attempt < 2 {
		return
	}
	if err := logs.Remove(p.logPath(container, attempt-2)); err != nil {
		p.log.Warn("removing an old log", "container", container, "error", err)
	}
	if err := os.Remove(p.terminationName(container, attempt-2)); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.log.Warn("removing an old termination message", "container", container, "error", err)
	}
}
