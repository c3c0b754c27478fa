package storage_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"ebb.dev/ebb/internal/component/node/storage"
)

func run(t *testing.T) (*fake.Clientset, string) {
	client, dir := fake.NewClientset(), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- storage.Run(ctx, storage.Config{Client: client, Node: "here", Dir: dir, Events: record.NewFakeRecorder(100), Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the storage class", func() bool {
		class, err := client.StorageV1().StorageClasses().Get(t.Context(), storage.ClassName, metav1.GetOptions{})
		return err == nil && class.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" && *class.VolumeBindingMode == "WaitForFirstConsumer"
	})
	return client, dir
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func claim(name, node string) *corev1.PersistentVolumeClaim {
	class := storage.ClassName
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-1", Annotations: map[string]string{}},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
	}
	if node != "" {
		c.Annotations["volume.kubernetes.io/selected-node"] = node
	}
	return c
}

func TestVolumeIsMadeForThisNodeAndRemoved(t *testing.T) {
	for name, policy := range map[string]corev1.PersistentVolumeReclaimPolicy{"deleted": corev1.PersistentVolumeReclaimDelete, "retained": corev1.PersistentVolumeReclaimRetain} {
		t.Run(name, func(t *testing.T) {
			client, dir := run(t)
			volumes := client.CoreV1().PersistentVolumes()
			if _, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), claim("data", "here"), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			var pv *corev1.PersistentVolume
			eventually(t, "the volume", func() bool {
				var err error
				pv, err = volumes.Get(t.Context(), "pvc-uid-1", metav1.GetOptions{})
				return err == nil
			})
			if pv.Spec.ClaimRef.Name != "data" || pv.Spec.Local.Path != filepath.Join(dir, "pvc-uid-1") || pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
				t.Errorf("volume = %+v", pv.Spec)
			}
			if got := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]; got != "here" {
				t.Errorf("the volume belongs to %s", got)
			}
			if err := os.WriteFile(filepath.Join(pv.Spec.Local.Path, "f"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			pv.Spec.PersistentVolumeReclaimPolicy, pv.Status.Phase = policy, corev1.VolumeReleased
			if _, err := volumes.Update(t.Context(), pv, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if policy == corev1.PersistentVolumeReclaimDelete {
				eventually(t, "the folder to go", func() bool {
					_, err := os.Stat(pv.Spec.Local.Path)
					return errors.Is(err, os.ErrNotExist)
				})
				return
			}
			// A second claim's volume comes later than any removal of the first would.
			other := claim("more", "here")
			other.UID = "uid-2"
			if _, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the second volume", func() bool {
				_, err := volumes.Get(t.Context(), "pvc-uid-2", metav1.GetOptions{})
				return err == nil
			})
			if _, err := os.Stat(filepath.Join(pv.Spec.Local.Path, "f")); err != nil {
				t.Errorf("a retained volume lost its contents: %v", err)
			}
		})
	}
}

func TestClaimsWaitForTheirNode(t *testing.T) {
	client, _ := run(t)
	for _, c := range []*corev1.PersistentVolumeClaim{claim("unscheduled", ""), claim("elsewhere", "there")} {
		if _, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), c, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mine := claim("mine", "here")
	mine.UID = "uid-9"
	if _, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "my volume", func() bool {
		_, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-uid-9", metav1.GetOptions{})
		return err == nil
	})
	list, err := client.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("%d volumes, %v, want 1", len(list.Items), err)
	}
}

func TestAClassThatDoesNotWaitGetsItsVolumeAtOnce(t *testing.T) {
	client, _ := run(t)
	immediate := storagev1.VolumeBindingImmediate
	for name, mode := range map[string]*storagev1.VolumeBindingMode{"at-once": &immediate, "by-default": nil} {
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: storage.Provisioner, VolumeBindingMode: mode}
		if _, err := client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c := claim(name, "")
		c.UID, c.Spec.StorageClassName = types.UID(name), &class.Name
		if _, err := client.CoreV1().PersistentVolumeClaims("ns").Create(t.Context(), c, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the volume "+name, func() bool {
			_, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-"+name, metav1.GetOptions{})
			return err == nil
		})
	}
}
