package volume

import (
	"context"
	"fmt"
	"maps"
	"path"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// file is one file of a content volume.
type file struct {
	data []byte
	mode int32
	uid  *int64 // owner, root when nil
}

// payload is a content volume's files by relative path.
type payload map[string]file

// source is one projection together with the mode its files get by default.
type source struct {
	corev1.VolumeProjection
	mode int32
}

const defaultMode = 0o644

// sources gives configMap, secret, downwardAPI and projected volumes one form.
func (m *Mounter) sources(v *corev1.Volume) ([]source, error) {
	switch {
	case v.ConfigMap != nil:
		return []source{{mode: modeOr(v.ConfigMap.DefaultMode, defaultMode), VolumeProjection: corev1.VolumeProjection{
			ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
			},
		}}}, nil
	case v.Secret != nil:
		return []source{{mode: modeOr(v.Secret.DefaultMode, defaultMode), VolumeProjection: corev1.VolumeProjection{
			Secret: &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional,
			},
		}}}, nil
	case v.DownwardAPI != nil:
		return []source{{mode: modeOr(v.DownwardAPI.DefaultMode, defaultMode), VolumeProjection: corev1.VolumeProjection{
			DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items},
		}}}, nil
	case v.Projected != nil:
		out := make([]source, 0, len(v.Projected.Sources))
		for _, p := range v.Projected.Sources {
			out = append(out, source{VolumeProjection: p, mode: modeOr(v.Projected.DefaultMode, defaultMode)})
		}
		return out, nil
	}
	return nil, ErrUnsupported
}

func modeOr(mode *int32, fallback int32) int32 {
	if mode == nil {
		return fallback
	}
	return *mode
}

// collect adds one source's files and says when it wants to be read again.
func (m *Mounter) collect(ctx context.Context, pod *corev1.Pod, s *source, files payload) (time.Time, error) {
	switch {
	case s.ConfigMap != nil:
		cm, err := m.Objects.ConfigMap(ctx, pod.Namespace, s.ConfigMap.Name)
		if apierrors.IsNotFound(err) && truth(s.ConfigMap.Optional) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
		for k, v := range cm.Data {
			data[k] = []byte(v)
		}
		maps.Copy(data, cm.BinaryData)
		return time.Time{}, files.keys(data, s.ConfigMap.Items, s.mode, truth(s.ConfigMap.Optional))
	case s.Secret != nil:
		secret, err := m.Objects.Secret(ctx, pod.Namespace, s.Secret.Name)
		if apierrors.IsNotFound(err) && truth(s.Secret.Optional) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		return time.Time{}, files.keys(secret.Data, s.Secret.Items, s.mode, truth(s.Secret.Optional))
	case s.DownwardAPI != nil:
		return time.Time{}, m.downward(pod, s, files)
	case s.ServiceAccountToken != nil:
		return m.token(ctx, pod, s, files)
	}
	return time.Time{}, fmt.Errorf("projecting: %w", ErrUnsupported)
}

func truth(b *bool) bool { return b != nil && *b }

// keys adds all keys, or those named by items under the paths given there.
func (p payload) keys(data map[string][]byte, items []corev1.KeyToPath, mode int32, optional bool) error {
	if len(items) == 0 {
		for k, v := range data {
			p[k] = file{data: v, mode: mode}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("references non-existent config key: %s", item.Key)
		}
		p[path.Clean(item.Path)] = file{data: value, mode: modeOr(item.Mode, mode)}
	}
	return nil
}

func (m *Mounter) downward(pod *corev1.Pod, s *source, files payload) error {
	for i := range s.DownwardAPI.Items {
		item := &s.DownwardAPI.Items[i]
		var (
			value string
			err   error
		)
		switch {
		case item.FieldRef != nil:
			value, err = m.Field(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = m.Resource(pod, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		files[path.Clean(item.Path)] = file{data: []byte(value), mode: modeOr(item.Mode, s.mode)}
	}
	return nil
}

func (m *Mounter) token(ctx context.Context, pod *corev1.Pod, s *source, files payload) (time.Time, error) {
	spec := s.ServiceAccountToken
	expiration := int64(time.Hour / time.Second)
	if spec.ExpirationSeconds != nil {
		expiration = *spec.ExpirationSeconds
	}
	token, err := m.Tokens.Token(ctx, pod, spec.Audience, expiration)
	if err != nil {
		return time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	f := file{data: []byte(token.Value), mode: s.mode}
	// Only the user who runs the pod may read it where that user is known; fsGroup adds group read.
	if owner := soleUser(pod); owner != nil || fsGroup(pod) != nil {
		f.uid, f.mode = owner, 0o600
	}
	files[path.Clean(spec.Path)] = f
	return token.Refresh, nil
}

// soleUser is the UID all containers run as, when the pod says so.
func soleUser(pod *corev1.Pod) *int64 {
	var podUser, user *int64
	if sc := pod.Spec.SecurityContext; sc != nil {
		podUser = sc.RunAsUser
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			own := podUser
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				own = sc.RunAsUser
			}
			if own == nil || (user != nil && *user != *own) {
				return nil
			}
			user = own
		}
	}
	return user
}
