package object

import (
	"context"
	"fmt"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// A token is replaced when a fifth of its life is left, and after a day at the latest.
const (
	renewAt  = 0.8
	renewDay = 24 * time.Hour
)

// Token is a service account's token for one pod.
type Token struct {
	Value   string
	Refresh time.Time // when a newer one should be fetched
}

// Tokens issues service account tokens bound to pods.
type Tokens struct {
	client kubernetes.Interface

	mu     sync.Mutex // guards issued
	issued map[tokenKey]Token
}

type tokenKey struct {
	uid      types.UID
	audience string
	seconds  int64
}

// NewTokens returns an issuer.
func NewTokens(client kubernetes.Interface) *Tokens {
	return &Tokens{client: client, issued: map[tokenKey]Token{}}
}

// Token returns the pod's token for the audience, a new one when the former should be renewed.
func (t *Tokens) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (Token, error) {
	k := tokenKey{pod.UID, audience, seconds}
	t.mu.Lock()
	known, ok := t.issued[k]
	t.mu.Unlock()
	if ok && time.Now().Before(known.Refresh) {
		return known, nil
	}
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	now := time.Now()
	res, err := t.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
	if err != nil {
		return Token{}, fmt.Errorf("requesting a token of service account %s/%s: %w", pod.Namespace, pod.Spec.ServiceAccountName, err)
	}
	life := res.Status.ExpirationTimestamp.Sub(now)
	fresh := Token{Value: res.Status.Token, Refresh: now.Add(min(time.Duration(float64(life)*renewAt), renewDay))}
	t.mu.Lock()
	t.issued[k] = fresh
	t.mu.Unlock()
	return fresh, nil
}

// Forget drops a pod's tokens.
func (t *Tokens) Forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.issued {
		if k.uid == uid {
			delete(t.issued, k)
		}
	}
}

// Claims finds persistent volumes.
type Claims struct{ Client kubernetes.Interface }

// Volume returns the volume bound to the pod's claim.
func (c Claims) Volume(ctx context.Context, pod *corev1.Pod, claim string) (*corev1.PersistentVolume, error) {
	pvc, err := c.Client.CoreV1().PersistentVolumeClaims(pod.Namespace).Get(ctx, claim, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pvc.DeletionTimestamp != nil && pod.Status.StartTime == nil {
		return nil, fmt.Errorf("claim %s is being deleted", claim)
	}
	if owner := metav1.GetControllerOf(pvc); owner != nil && owner.Kind == "Pod" && owner.UID != pod.UID {
		return nil, fmt.Errorf("claim %s was not created for this pod", claim)
	}
	if pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "" {
		return nil, fmt.Errorf("claim %s is not bound to a volume", claim)
	}
	pv, err := c.Client.CoreV1().PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
		return nil, fmt.Errorf("volume %s is bound to another claim than %s", pv.Name, claim)
	}
	return pv, nil
}
