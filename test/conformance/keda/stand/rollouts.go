package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// rollouts gives each Rollout of Argo's a ReplicaSet with as many replicas, and shows its state in the
// Rollout's: what tests of scaling need of Argo Rollouts. There are no steps and no second revision.
func rollouts(ctx context.Context, _ []string) error {
	api, err := newAPI()
	if err != nil {
		return err
	}
	for {
		if err := api.reconcile(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "reconciling:", err)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// object is what a controller looks at, of Rollouts and ReplicaSets alike.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string           `json:"name"`
		Namespace       string           `json:"namespace"`
		UID             string           `json:"uid,omitempty"`
		Deleted         string           `json:"deletionTimestamp,omitempty"`
		OwnerReferences []map[string]any `json:"ownerReferences,omitempty"`
	} `json:"metadata"`
	Spec struct {
		Replicas *int           `json:"replicas,omitempty"`
		Selector map[string]any `json:"selector"`
		Template map[string]any `json:"template"`
	} `json:"spec"`
	Status map[string]any `json:"status,omitempty"`
}

// api talks to the API server as the pod's service account.
type api struct {
	address string
	client  *http.Client
}

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func newAPI() (*api, error) {
	pem, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &api{
		address: "https://" + os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT"),
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}},
		},
	}, nil
}

func (a *api) do(ctx context.Context, method, path string, in, out any) (int, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, method, a.address+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return response.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return response.StatusCode, json.Unmarshal(text, out)
}

func (a *api) reconcile(ctx context.Context) error {
	var list struct{ Items []object }
	if _, err := a.do(ctx, http.MethodGet, "/apis/argoproj.io/v1alpha1/rollouts", nil, &list); err != nil {
		return err
	}
	for i := range list.Items {
		if list.Items[i].Metadata.Deleted != "" {
			continue
		}
		if err := a.rollout(ctx, &list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// rollout makes or scales the ReplicaSet and reports.
func (a *api) rollout(ctx context.Context, r *object) error {
	m := &r.Metadata
	want := 1
	if r.Spec.Replicas != nil {
		want = *r.Spec.Replicas
	}
	sets := "/apis/apps/v1/namespaces/" + m.Namespace + "/replicasets"
	var set object
	status, err := a.do(ctx, http.MethodGet, sets+"/"+m.Name, nil, &set)
	switch {
	case status == http.StatusNotFound:
		set = object{APIVersion: "apps/v1", Kind: "ReplicaSet"}
		set.Metadata.Name, set.Metadata.Namespace = m.Name, m.Namespace
		set.Metadata.OwnerReferences = []map[string]any{{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": m.Name, "uid": m.UID, "controller": true,
		}}
		set.Spec.Replicas, set.Spec.Selector, set.Spec.Template = &want, r.Spec.Selector, r.Spec.Template
		_, err = a.do(ctx, http.MethodPost, sets, set, &set)
	case err == nil && (set.Spec.Replicas == nil || *set.Spec.Replicas != want):
		_, err = a.do(ctx, http.MethodPatch, sets+"/"+m.Name, map[string]any{"spec": map[string]any{"replicas": want}}, &set)
	}
	if err != nil {
		return err
	}
	return a.report(ctx, r, set.Status)
}

// report copies the ReplicaSet's counts; as with Argo Rollouts one that is nought is left out.
func (a *api) report(ctx context.Context, r *object, of map[string]any) error {
	changed := map[string]any{}
	selector := ""
	if labels, are := r.Spec.Selector["matchLabels"].(map[string]any); are {
		for key, value := range labels {
			if selector != "" {
				selector += ","
			}
			selector += fmt.Sprintf("%s=%v", key, value)
		}
	}
	if r.Status["selector"] == nil {
		changed["selector"] = selector
	}
	for from, to := range map[string]string{"replicas": "replicas", "fullyLabeledReplicas": "HPAReplicas", "readyReplicas": "readyReplicas", "availableReplicas": "availableReplicas"} {
		now := of[from]
		if now == 0.0 && to != "replicas" && to != "HPAReplicas" {
			now = nil
		}
		if r.Status[to] != now {
			changed[to] = now
		}
	}
	if len(changed) == 0 {
		return nil
	}
	path := "/apis/argoproj.io/v1alpha1/namespaces/" + r.Metadata.Namespace + "/rollouts/" + r.Metadata.Name + "/status"
	var ignored object
	_, err := a.do(ctx, http.MethodPatch, path, map[string]any{"status": changed}, &ignored)
	return err
}
