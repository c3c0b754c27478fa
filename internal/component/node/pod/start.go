package pod

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod/env"
	"ebb.dev/ebb/internal/component/node/pod/network"
	"ebb.dev/ebb/internal/component/node/pod/resource"
	"ebb.dev/ebb/internal/component/node/pod/security"
	"ebb.dev/ebb/internal/component/node/pod/volume"
)

// Waiting reasons, the kubelet's.
const (
	reasonCreating     = "ContainerCreating"
	reasonInitializing = "PodInitializing"
	reasonErrPull      = "ErrImagePull"
	reasonPullBackOff  = "ImagePullBackOff"
	reasonConfig       = "CreateContainerConfigError"
	reasonRun          = "RunContainerError"
	reasonCrash        = "CrashLoopBackOff"
)

const (
	defaultPath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	configRetry  = 5 * time.Second
	startFailure = 128 // exit code of a program that could not be started
)

// start begins the next run of a container whose needs are met.
func (p *Pod) start(c *container) {
	if c.term != nil {
		c.last = c.term
	}
	c.phase, c.term, c.early = starting, nil, nil
	c.delay, c.until = 0, time.Time{}
	c.killing, c.up, c.ready, c.hooked = false, false, false, false
	c.gone = make(chan struct{})
	job := startJob{
		pod: p.pod, spec: c.spec, kind: c.kind, id: newID(), previous: c.id, attempt: c.attempt + 1, image: c.image.value,
		sandbox: p.sandbox.value, volumes: p.volumes.value,
	}
	c.id, c.attempt = job.id, job.attempt
	p.beside(func(ctx context.Context) func() {
		rc, err := p.run(ctx, job)
		return func() { p.startedRun(c, job, rc, err) }
	})
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// startJob is all a start needs, taken at one moment.
type startJob struct {
	pod  *corev1.Pod
	spec *corev1.Container
	kind kind
	id   string
	// previous is the run before, whose root is freed once this one has started.
	previous string
	attempt  int
	image    runtime.Image
	sandbox  runtime.Sandbox
	volumes  volume.Result
}

func (p *Pod) run(ctx context.Context, j startJob) (runtime.Container, error) {
	spec, err := p.containerSpec(ctx, j)
	if err != nil {
		return runtime.Container{}, configError{err}
	}
	return p.host.Runtime.StartContainer(ctx, *spec)
}

// configError is a container that cannot be described, as opposed to one that does not start.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// startedRun takes the outcome of a start.
func (p *Pod) startedRun(c *container, j startJob, rc runtime.Container, err error) {
	if c.id != j.id {
		return
	}
	now := time.Now()
	var config configError
	switch {
	case p.ctx.Err() != nil && err != nil:
		return
	case errors.As(err, &config):
		c.phase, c.reason, c.message = waiting, reasonConfig, err.Error()
		c.attempt, c.id = j.attempt-1, j.previous
		close(c.gone)
		c.until = now.Add(configRetry)
		p.event(corev1.EventTypeWarning, eventFailed, "Error: "+err.Error())
	case err != nil:
		p.log.Warn("starting a container", "container", c.spec.Name, "error", err)
		p.event(corev1.EventTypeWarning, eventFailed, "Error: "+err.Error())
		c.run = runtime.Container{ID: j.id, Name: c.spec.Name, Attempt: j.attempt, Started: now, Finished: now, ExitCode: startFailure}
		c.began = now
		c.image = task[runtime.Image]{} // looked at anew: it may be what is missing
		p.ended(c, c.run, &corev1.ContainerStateTerminated{Reason: "StartError", Message: err.Error()})
		c.reason, c.message = reasonRun, err.Error()
		if errors.Is(err, runtime.ErrNotRunning) {
			p.renewSandbox()
		}
	default:
		c.phase, c.run, c.began = running, rc, now
		if !rc.Started.IsZero() {
			c.began = rc.Started
		}
		if p.stamps["started"].IsZero() && c.kind == regular {
			p.stamps["started"] = now
		}
		p.event(corev1.EventTypeNormal, eventCreated, "Container created: "+c.spec.Name)
		p.event(corev1.EventTypeNormal, eventStarted, "Container started: "+c.spec.Name)
		p.forget(c.spec.Name, j.previous, j.attempt)
		p.lease(c.spec.Name, j.image.Digest)
		p.watch(c, true)
		if c.early != nil {
			p.exited(*c.early)
		}
	}
}

// forget frees what is left of the run before.
func (p *Pod) forget(name, id string, attempt int) {
	if id == "" {
		return
	}
	p.beside(func(ctx context.Context) func() {
		if err := p.host.Runtime.RemoveContainer(ctx, id); err != nil && !errors.Is(err, runtime.ErrNotFound) && ctx.Err() == nil {
			p.log.Warn("removing a former container", "container", name, "error", err)
		}
		p.trimLogs(name, attempt)
		return nil
	})
}

func (p *Pod) logPath(container string, attempt int) string {
	return filepath.Join(LogFolder(p.host.LogDir, p.Current()), container, strconv.Itoa(attempt)+".log")
}

// LogFolder is where a pod's logs are, a folder per container and a file per attempt in it.
func LogFolder(dir string, pod *corev1.Pod) string {
	return filepath.Join(dir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// containerSpec describes one run of a container to the runtime.
func (p *Pod) containerSpec(ctx context.Context, j startJob) (*runtime.ContainerSpec, error) {
	vars, err := p.environment(ctx, j)
	if err != nil {
		return nil, err
	}
	process, err := p.process(j, vars)
	if err != nil {
		return nil, err
	}
	filter, err := p.host.Profiles.Seccomp(j.pod, j.spec, process.Capabilities.Bounding)
	if err != nil {
		return nil, err
	}
	mounts, err := p.host.Volumes.Mounts(j.pod, j.spec, &j.volumes, vars.ExpandAll)
	if err != nil {
		return nil, err
	}
	files, err := p.files(j, mounts)
	if err != nil {
		return nil, err
	}
	masked, readonly := security.Paths(j.spec)
	sc := j.spec.SecurityContext
	s := &runtime.ContainerSpec{
		ID: j.id, SandboxID: string(p.uid), Name: j.spec.Name, Attempt: j.attempt,
		RootFS:         j.image.RootFS,
		ReadOnlyRootFS: sc != nil && sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem,
		Process:        *process, Mounts: append(files, mounts...),
		Privileged: security.Privileged(j.spec), Seccomp: filter, MaskedPaths: masked, ReadonlyPaths: readonly,
		Resources: resource.Container(j.pod, j.spec, p.host.MemoryCapacity),
		LogPath:   p.logPath(j.spec.Name, j.attempt),
		Stdin:     j.spec.Stdin, StdinOnce: j.spec.StdinOnce,
		Annotations: map[string]string{annotationImage: j.image.Reference, annotationImageID: j.image.Digest, annotationStop: j.image.StopSignal},
	}
	return s, os.MkdirAll(filepath.Dir(s.LogPath), 0o750)
}

// Annotations by which a container that outlived the node is understood again.
const (
	annotationImage   = "ebb.dev/image"
	annotationImageID = "ebb.dev/image-id"
	annotationStop    = "ebb.dev/stop-signal"
)

func (p *Pod) ips(s runtime.Sandbox, pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		if len(p.host.SharedIPs) > 0 {
			return p.host.SharedIPs
		}
		return p.host.HostIPs
	}
	if s.IP.IsValid() {
		return []string{s.IP.String()}
	}
	return nil
}

func (p *Pod) environment(ctx context.Context, j startJob) (*env.Result, error) {
	source := env.Source{
		Pod: j.pod, Facts: env.Facts{PodIPs: p.ips(j.sandbox, j.pod), HostIPs: p.host.HostIPs},
		Objects: p.host.Objects, Services: p.host.Services(j.pod.Namespace), Allocatable: p.host.Allocatable,
	}
	vars, err := source.Build(ctx, j.spec, j.image.Env)
	if err == nil && len(vars.Skipped) > 0 {
		p.event(corev1.EventTypeWarning, eventEnv, fmt.Sprintf(
			"Keys [%s] were skipped since they are considered invalid environment variable names.", strings.Join(vars.Skipped, ", ")))
	}
	return vars, err
}

func (p *Pod) process(j startJob, vars *env.Result) (*specs.Process, error) {
	args := commandLine(j, vars)
	if len(args) == 0 {
		return nil, errors.New("no command specified")
	}
	who, err := security.User(j.pod, j.spec, j.image.User, j.image.RootFS)
	if err != nil {
		return nil, err
	}
	caps, err := security.Capabilities(j.spec)
	if err != nil {
		return nil, err
	}
	armor, err := security.AppArmor(j.pod, j.spec)
	if err != nil {
		return nil, err
	}
	cwd := j.spec.WorkingDir
	if cwd == "" {
		cwd = j.image.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	host, _ := network.Hostname(j.pod, p.host.NodeName, p.host.Cluster)
	list := append([]string{defaultPath, "HOSTNAME=" + host, "HOME=" + who.Home}, vars.Vars...)
	if j.spec.TTY {
		list = append([]string{"TERM=xterm"}, list...)
	}
	return &specs.Process{
		Terminal: j.spec.TTY, User: who.User, Args: args, Env: lastWins(list), Cwd: cwd, Capabilities: caps,
		NoNewPrivileges: security.NoNewPrivileges(j.spec), ApparmorProfile: armor,
	}, nil
}

// commandLine is Kubernetes' reading of command and args over the image's entry point.
func commandLine(j startJob, vars *env.Result) []string {
	expanded := func(list []string) []string {
		out := make([]string, len(list))
		for i, s := range list {
			out[i] = vars.Expand(s)
		}
		return out
	}
	command, args := expanded(j.spec.Command), expanded(j.spec.Args)
	if len(command) == 0 {
		command = j.image.Entrypoint
		if len(args) == 0 {
			args = j.image.Cmd
		}
	}
	return append(append([]string{}, command...), args...)
}

// lastWins keeps each variable's last value at the place of its first.
func lastWins(list []string) []string {
	at := make(map[string]int, len(list))
	out := make([]string, 0, len(list))
	for _, pair := range list {
		name, _, _ := strings.Cut(pair, "=")
		if i, ok := at[name]; ok {
			out[i] = pair
			continue
		}
		at[name] = len(out)
		out = append(out, pair)
	}
	return out
}
