package resource_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/runtime"
	podresource "ebb.dev/ebb/internal/component/node/pod/resource"
)

func list(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func podOf(all ...corev1.ResourceRequirements) *corev1.Pod {
	p := &corev1.Pod{}
	for _, r := range all {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: r})
	}
	return p
}

func TestContainerAndPod(t *testing.T) {
	const gib = 1 << 30
	tests := map[string]struct {
		pod       *corev1.Pod
		class     corev1.PodQOSClass
		container runtime.Resources
		total     runtime.Resources
	}{
		"nothing said is best effort": {
			pod: podOf(corev1.ResourceRequirements{}), class: corev1.PodQOSBestEffort,
			container: runtime.Resources{CPUShares: 2, OOMScoreAdj: 1000}, total: runtime.Resources{CPUShares: 2, PIDs: 99},
		},
		"requests equal to limits are guaranteed": {
			pod: podOf(corev1.ResourceRequirements{Requests: list("500m", "1Gi"), Limits: list("500m", "1Gi")}), class: corev1.PodQOSGuaranteed,
			container: runtime.Resources{CPUShares: 512, CPUQuotaUS: 50000, CPUPeriodUS: 100000, MemoryBytes: gib, OOMScoreAdj: -997},
			total:     runtime.Resources{CPUShares: 512, CPUQuotaUS: 50000, CPUPeriodUS: 100000, MemoryBytes: gib, PIDs: 99},
		},
		"requests alone are burstable": {
			pod: podOf(corev1.ResourceRequirements{Requests: list("250m", "2Gi")}), class: corev1.PodQOSBurstable,
			container: runtime.Resources{CPUShares: 256, OOMScoreAdj: 750}, total: runtime.Resources{CPUShares: 256, PIDs: 99},
		},
		"the smallest quota is a millisecond": {
			pod: podOf(corev1.ResourceRequirements{Requests: list("1m", ""), Limits: list("1m", "")}), class: corev1.PodQOSBurstable,
			container: runtime.Resources{CPUShares: 2, CPUQuotaUS: 1000, CPUPeriodUS: 100000, OOMScoreAdj: 999},
			total:     runtime.Resources{CPUShares: 2, CPUQuotaUS: 1000, CPUPeriodUS: 100000, PIDs: 99},
		},
		"one unlimited container leaves the pod unlimited": {
			pod: podOf(corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")}, corev1.ResourceRequirements{Requests: list("1", "")}), class: corev1.PodQOSBurstable,
			container: runtime.Resources{CPUShares: 1024, CPUQuotaUS: 100000, CPUPeriodUS: 100000, MemoryBytes: gib, OOMScoreAdj: 875},
			total:     runtime.Resources{CPUShares: 2048, PIDs: 99},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := podresource.QOS(tc.pod); got != tc.class {
				t.Errorf("class %s, want %s", got, tc.class)
			}
			if diff := cmp.Diff(tc.container, podresource.Container(tc.pod, &tc.pod.Spec.Containers[0], 8*gib)); diff != "" {
				t.Errorf("container (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.total, podresource.Pod(tc.pod, 99)); diff != "" {
				t.Errorf("pod (-want +got):\n%s", diff)
			}
		})
	}
}
