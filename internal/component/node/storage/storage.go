// Package storage provides persistent volumes on the node's own disk: a folder for each volume.
//
// It makes the default StorageClass, waits until the scheduler has chosen this node for a claim's
// first pod, makes the folder and a volume bound to the claim, and removes both again once the
// claim is gone and the volume's reclaim policy says so.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// Names in the API.
const (
	ClassName   = "local"
	Provisioner = "ebb.dev/local"

	annotationNode     = "volume.kubernetes.io/selected-node"
	annotationClass    = "storageclass.kubernetes.io/is-default-class"
	annotationProvider = "pv.kubernetes.io/provisioned-by"
)

// Config says where volumes are and whose they are.
type Config struct {
	Client kubernetes.Interface
	Node   string
	Dir    string
	Events record.EventRecorder
	Log    *slog.Logger
}

type controller struct {
	Config
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	queue   workqueue.TypedRateLimitingInterface[string] // "claim/ns/name" and "volume/name"
}

// Run provides volumes until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if err := makeClass(ctx, cfg.Client); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(cfg.Client, 0)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	c := &controller{
		Config: cfg, claims: claims.Lister(), volumes: volumes.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second)),
	}
	defer c.queue.ShutDown()
	for prefix, informer := range map[string]cache.SharedIndexInformer{"claim": claims.Informer(), "volume": volumes.Informer()} {
		add := func(obj any) {
			if key, err := cache.MetaNamespaceKeyFunc(obj); err == nil {
				c.queue.Add(prefix + "/" + key)
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }}); err != nil {
			return fmt.Errorf("watching for persistent volumes: %w", err)
		}
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), claims.Informer().HasSynced, volumes.Informer().HasSynced) {
		return nil
	}
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	for c.next(ctx) {
	}
	return nil
}

func makeClass(ctx context.Context, client kubernetes.Interface) error {
	wait, del := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{annotationClass: "true"}},
		Provisioner: Provisioner, VolumeBindingMode: &wait, ReclaimPolicy: &del,
	}
	// An existing class stays as it is: its owner may have chosen another default.
	_, err := client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
		return fmt.Errorf("making the storage class: %w", err)
	}
	return nil
}

func (c *controller) next(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	kind, name, _ := strings.Cut(key, "/")
	var err error
	if kind == "claim" {
		err = c.claim(ctx, name)
	} else {
		err = c.volume(ctx, name)
	}
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("providing a persistent volume", "for", key, "error", err)
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

// claim makes the volume of a claim whose first pod was scheduled here, or of one whose class does not
// wait for a pod.
func (c *controller) claim(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	pvc, err := c.claims.PersistentVolumeClaims(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.concerns(pvc) {
		return nil
	}
	class, err := c.Client.StorageV1().StorageClasses().Get(ctx, *pvc.Spec.StorageClassName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading storage class %s: %w", *pvc.Spec.StorageClassName, err)
	}
	if class.Provisioner != Provisioner || pvc.Annotations[annotationNode] == "" && waits(class) {
		return nil
	}
	if err := c.provision(ctx, pvc, class); err != nil {
		c.Events.Event(pvc, corev1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return err
	}
	return nil
}

// concerns says whether a claim still wants a volume and this node may be where it goes.
func (c *controller) concerns(pvc *corev1.PersistentVolumeClaim) bool {
	if pvc.Spec.VolumeName != "" || pvc.DeletionTimestamp != nil || pvc.Spec.StorageClassName == nil {
		return false
	}
	chosen := pvc.Annotations[annotationNode]
	return chosen == "" || chosen == c.Node
}

func waits(class *storagev1.StorageClass) bool {
	return class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

func (c *controller) provision(ctx context.Context, pvc *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	if pvc.Spec.VolumeMode != nil && *pvc.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		return errors.New("volumes are folders here: volumeMode Block cannot be provided")
	}
	if pvc.Spec.DataSource != nil || pvc.Spec.DataSourceRef != nil {
		return errors.New("volumes start empty here: a dataSource cannot be provided")
	}
	name := "pvc-" + string(pvc.UID)
	path := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(path, 0o777); err != nil { //nolint:gosec // whoever the pod runs as writes here
		return fmt.Errorf("making the volume's folder: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
		return fmt.Errorf("making the volume's folder: %w", err)
	}
	pv := volumeFor(pvc, class, name, path, c.Node)
	_, err := c.Client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making volume %s: %w", name, err)
	}
	c.Events.Event(pvc, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume "+name)
	return nil
}

func volumeFor(pvc *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, name, path, node string) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{annotationProvider: Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: pvc.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: pvc.Spec.AccessModes, PersistentVolumeReclaimPolicy: reclaim, StorageClassName: class.Name, VolumeMode: &mode,
			ClaimRef:               &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: pvc.Namespace, Name: pvc.Name, UID: pvc.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
}

// volume removes one of our volumes that was released for deletion.
func (c *controller) volume(ctx context.Context, name string) error {
	pv, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if pv.Annotations[annotationProvider] != Provisioner || pv.Status.Phase != corev1.VolumeReleased ||
		pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || !c.mine(pv) {
		return nil
	}
	// Only a folder this package would have made is ever removed.
	if pv.Spec.Local == nil || filepath.Clean(pv.Spec.Local.Path) != filepath.Join(c.Dir, pv.Name) || !filepath.IsLocal(pv.Name) {
		return fmt.Errorf("volume %s does not point to a folder of this node", pv.Name)
	}
	if err := os.RemoveAll(pv.Spec.Local.Path); err != nil {
		return fmt.Errorf("removing the folder of volume %s: %w", pv.Name, err)
	}
	err = c.Client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pv.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting volume %s: %w", pv.Name, err)
	}
	return nil
}

// mine says whether the volume is on this node.
func (c *controller) mine(pv *corev1.PersistentVolume) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return false
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == corev1.LabelHostname && len(e.Values) == 1 && e.Values[0] == c.Node {
				return true
			}
		}
	}
	return false
}
