package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	vk "github.com/virtual-kubelet/virtual-kubelet/node"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultMaxPods = 500
	// kubeletVersion is what tools compare with the API server's; ours behaves like that one.
	kubeletVersion = "v1.36.4+ebb"
	kubeletPort    = 10250
	leaseSeconds   = 40
	renewEvery     = 10 * time.Second
	statusEvery    = 5 * time.Minute
)

// Below these the node says so and no new pods come.
const (
	memoryLow = 100 << 20
	diskLow   = 0.05 // of the file system
	inodesLow = 0.02
	pidsLow   = 1000
)

// status is the node object's provider for virtual-kubelet.
type status struct {
	config Config
	node   *corev1.Node
}

func newStatus(c Config) (*status, error) {
	s := &status{config: c}
	capacity, err := s.capacity()
	if err != nil {
		return nil, err
	}
	info, err := systemInfo(c.Version)
	if err != nil {
		return nil, err
	}
	now := metav1.Now()
	s.node = &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.Name,
			Labels: map[string]string{
				corev1.LabelOSStable: "linux", corev1.LabelArchStable: goruntime.GOARCH, corev1.LabelHostname: c.Name,
				"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": goruntime.GOARCH,
				"node.kubernetes.io/instance-type": "ebb",
			},
		},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity.DeepCopy(), Phase: corev1.NodeRunning,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: c.Address.String()}, {Type: corev1.NodeHostName, Address: c.Name},
			},
			NodeInfo:        *info,
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: kubeletPort}},
		},
	}
	for _, h := range append([]string{""}, c.Handlers...) {
		s.node.Status.RuntimeHandlers = append(s.node.Status.RuntimeHandlers, corev1.NodeRuntimeHandler{Name: h})
	}
	s.node.Status.Conditions = s.conditions(now, nil)
	return s, nil
}

// capacity is the machine's unless the configuration says otherwise.
func (s *status) capacity() (corev1.ResourceList, error) {
	var mem unix.Sysinfo_t
	if err := unix.Sysinfo(&mem); err != nil {
		return nil, fmt.Errorf("measuring the machine's memory: %w", err)
	}
	if err := os.MkdirAll(s.config.DataDir, 0o750); err != nil {
		return nil, fmt.Errorf("making the node's folder: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.config.DataDir, &disk); err != nil {
		return nil, fmt.Errorf("measuring the data folder's disk: %w", err)
	}
	list := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(mem.Totalram)*int64(mem.Unit), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Blocks)*disk.Bsize, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(s.config.MaxPods, resource.DecimalSI),
	}
	maps.Copy(list, s.config.Capacity)
	return list, nil
}

// Ping implements node.NodeProvider; the lease stands for it.
func (s *status) Ping(ctx context.Context) error { return ctx.Err() }

// NotifyNodeStatus implements node.NodeProvider: a change of pressure is told at once.
func (s *status) NotifyNodeStatus(ctx context.Context, notify func(*corev1.Node)) {
	go func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		last := s.node
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			next := last.DeepCopy()
			next.Status.Conditions = s.conditions(metav1.Now(), last.Status.Conditions)
			changed := false
			for i := range next.Status.Conditions {
				changed = changed || next.Status.Conditions[i].Status != last.Status.Conditions[i].Status
			}
			if changed {
				last = next
				notify(next)
			}
		}
	}()
}

// conditions measures the machine; times change only with the verdict.
func (s *status) conditions(now metav1.Time, old []corev1.NodeCondition) []corev1.NodeCondition {
	verdict := func(kind corev1.NodeConditionType, bad bool, reasonBad, reasonGood, message string) corev1.NodeCondition {
		c := corev1.NodeCondition{
			Type: kind, Status: corev1.ConditionFalse, Reason: reasonGood, Message: message,
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
		if bad {
			c.Status, c.Reason = corev1.ConditionTrue, reasonBad
		}
		for i := range old {
			if old[i].Type == kind && old[i].Status == c.Status {
				c.LastTransitionTime = old[i].LastTransitionTime
			}
		}
		return c
	}
	memory, memErr := availableMemory()
	disk := s.diskPressure()
	ready := verdict(corev1.NodeReady, true, "KubeletReady", "", "ebb is posting ready status")
	return []corev1.NodeCondition{
		verdict(corev1.NodeMemoryPressure, memErr == nil && memory < memoryLow, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			strconv.FormatInt(memory>>20, 10)+" MiB available"),
		verdict(corev1.NodeDiskPressure, disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "measured where ebb's data is"),
		verdict(corev1.NodePIDPressure, pidPressure(), "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "measured against the machine's limit"),
		verdict(corev1.NodeNetworkUnavailable, false, "NoRoute", "RouteCreated", "pods have routes"),
		ready,
	}
}

func availableMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) >= 2 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(errors.New("the kernel tells no available memory"), scan.Err())
}

func (s *status) diskPressure() bool {
	var disk unix.Statfs_t
	if err := unix.Statfs(s.config.DataDir, &disk); err != nil || disk.Blocks == 0 {
		return false
	}
	if float64(disk.Bavail) < diskLow*float64(disk.Blocks) {
		return true
	}
	return disk.Files > 0 && float64(disk.Ffree) < inodesLow*float64(disk.Files)
}

func pidPressure() bool {
	raw, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return false
	}
	top, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return false
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return false
	}
	return uint64(info.Procs)+pidsLow > top
}

func systemInfo(version string) (*corev1.NodeSystemInfo, error) {
	var un unix.Utsname
	if err := unix.Uname(&un); err != nil {
		return nil, fmt.Errorf("asking the kernel's version: %w", err)
	}
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(raw))
	}
	return &corev1.NodeSystemInfo{
		MachineID: read("/etc/machine-id"), SystemUUID: read("/sys/class/dmi/id/product_uuid"), BootID: read("/proc/sys/kernel/random/boot_id"),
		KernelVersion: unix.ByteSliceToString(un.Release[:]), OSImage: osImage(), ContainerRuntimeVersion: "ebb://" + strings.TrimPrefix(version, "v"),
		KubeletVersion: kubeletVersion, OperatingSystem: "linux", Architecture: goruntime.GOARCH,
	}, nil
}

func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if value, ok := strings.CutPrefix(scan.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "Linux"
}

// runNode keeps the node object and its lease; registered is closed once the object is there.
func (n *Node) runNode(ctx context.Context, registered chan<- struct{}) error {
	c, err := vk.NewNodeController(n.status, n.status.node, n.config.Client.CoreV1().Nodes(),
		vk.WithNodeEnableLeaseV1WithRenewInterval(n.config.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease), leaseSeconds, renewEvery),
		vk.WithNodePingInterval(renewEvery), vk.WithNodeStatusUpdateInterval(statusEvery))
	if err != nil {
		return fmt.Errorf("making the node's controller: %w", err)
	}
	go func() {
		select {
		case <-c.Ready():
			close(registered)
		case <-c.Done():
		}
	}()
	if err := c.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("registering the node: %w", err)
	}
	return nil
}

// runtimeClasses makes the objects by which pods choose among the handlers this node has.
func (n *Node) runtimeClasses(ctx context.Context) error {
	for _, h := range n.config.Handlers {
		rc := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: h}, Handler: h}
		_, err := n.config.Client.NodeV1().RuntimeClasses().Create(ctx, rc, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
			n.config.Log.Warn("making a runtime class", "name", h, "error", err)
		}
	}
	return nil
}
