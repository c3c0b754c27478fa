// Package resource turns a pod's requests and limits into cgroup values, as the kubelet does.
package resource

import (
	corev1 "k8s.io/api/core/v1"
	helper "k8s.io/component-helpers/resource"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// The kubelet's constants: cgroup v1's scale for CPU shares, and the usual CFS period.
const (
	minShares     = 2
	maxShares     = 262144
	sharesPerCPU  = 1024
	quotaPeriodUS = 100000
	minQuotaUS    = 1000
)

// The out-of-memory scores by class: lower lives longer.
const (
	guaranteedScore = -997
	criticalScore   = -997
	bestEffortScore = 1000
	minBurstable    = 2
	maxBurstable    = 999
	criticalFrom    = 2000000000 // system-cluster-critical and above
)

// Container computes one container's limits. memoryCapacity is the machine's, in bytes.
func Container(pod *corev1.Pod, c *corev1.Container, memoryCapacity int64) runtime.Resources {
	req, lim := c.Resources.Requests, c.Resources.Limits
	r := runtime.Resources{
		CPUShares:   shares(cpuRequest(req, lim)),
		MemoryBytes: lim.Memory().Value(),
		OOMScoreAdj: OOMScoreAdj(pod, c, memoryCapacity),
	}
	limit := lim.Cpu().MilliValue()
	memory := r.MemoryBytes
	if pod.Spec.Resources != nil { // a pod-level limit caps containers that have none of their own
		if limit == 0 {
			limit = pod.Spec.Resources.Limits.Cpu().MilliValue()
		}
		if memory == 0 {
			memory = pod.Spec.Resources.Limits.Memory().Value()
		}
	}
	r.MemoryBytes = memory
	r.CPUQuotaUS, r.CPUPeriodUS = quota(limit)
	return r
}

// cpuRequest is the request in milli-cores; a limit alone stands for both.
func cpuRequest(req, lim corev1.ResourceList) int64 {
	if _, set := req[corev1.ResourceCPU]; !set {
		if _, limited := lim[corev1.ResourceCPU]; limited {
			return lim.Cpu().MilliValue()
		}
	}
	return req.Cpu().MilliValue()
}

// Pod computes the totals every container of the pod shares. Limits count only when every container
// has one, otherwise the pod as a whole is unlimited.
func Pod(pod *corev1.Pod, maxPIDs int64) runtime.Resources {
	requests := helper.PodRequests(pod, helper.PodResourcesOptions{})
	memoryLimited, cpuLimited := true, true
	limits := helper.PodLimits(pod, helper.PodResourcesOptions{
		ContainerFn: func(res corev1.ResourceList, _ helper.ContainerType) {
			cpuLimited = cpuLimited && !res.Cpu().IsZero()
			memoryLimited = memoryLimited && !res.Memory().IsZero()
		},
	})
	if pod.Spec.Resources != nil {
		cpuLimited = cpuLimited || !pod.Spec.Resources.Limits.Cpu().IsZero()
		memoryLimited = memoryLimited || !pod.Spec.Resources.Limits.Memory().IsZero()
	}
	r := runtime.Resources{PIDs: maxPIDs}
	switch QOS(pod) {
	case corev1.PodQOSBestEffort:
		r.CPUShares = minShares
	default:
		r.CPUShares = shares(requests.Cpu().MilliValue())
		if cpuLimited {
			r.CPUQuotaUS, r.CPUPeriodUS = quota(limits.Cpu().MilliValue())
		}
		if memoryLimited {
			r.MemoryBytes = limits.Memory().Value()
		}
	}
	return r
}

func shares(milliCPU int64) uint64 {
	if milliCPU == 0 {
		return minShares
	}
	n := milliCPU * sharesPerCPU / 1000
	return uint64(min(max(n, minShares), maxShares))
}

func quota(milliCPU int64) (quotaUS int64, periodUS uint64) {
	if milliCPU == 0 {
		return 0, 0
	}
	return max(milliCPU*quotaPeriodUS/1000, minQuotaUS), quotaPeriodUS
}

// OOMScoreAdj says how eagerly the kernel takes this container when memory runs out.
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, memoryCapacity int64) int {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= criticalFrom {
		return criticalScore
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedScore
	case corev1.PodQOSBestEffort:
		return bestEffortScore
	case corev1.PodQOSBurstable: // by its share of the memory, below
	}
	if memoryCapacity <= 0 {
		return maxBurstable
	}
	request := c.Resources.Requests.Memory().Value()
	if pod.Spec.Resources != nil && request == 0 {
		request = pod.Spec.Resources.Requests.Memory().Value()
	}
	score := 1000 - int(1000*request/memoryCapacity)
	if score < 1000+guaranteedScore {
		return 1000 + guaranteedScore
	}
	if score == bestEffortScore {
		return maxBurstable
	}
	return max(score, minBurstable)
}

// QOS is the pod's class by its requests and limits of CPU and memory.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" { // set by the API server at creation, immutable
		return pod.Status.QOSClass
	}
	if pod.Spec.Resources != nil {
		return classify([]corev1.ResourceRequirements{*pod.Spec.Resources})
	}
	all := make([]corev1.ResourceRequirements, 0, len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].Resources)
	}
	for i := range pod.Spec.InitContainers {
		all = append(all, pod.Spec.InitContainers[i].Resources)
	}
	return classify(all)
}

func classify(all []corev1.ResourceRequirements) corev1.PodQOSClass {
	guaranteed, any := len(all) > 0, false
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			if !limit.IsZero() || !request.IsZero() {
				any = true
			}
			if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}
