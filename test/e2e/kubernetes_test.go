package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

func TestKubectlReachesIntoPods(t *testing.T) {
	image := greeter(t, shared, "inside-source")
	shared.apply(t, pod("inside", image, ""))
	awaitPod(t, "inside")
	t.Run("logs", func(t *testing.T) {
		if out := shared.do(t, "kubectl", "logs", "inside"); !strings.Contains(out, "listening on") {
			t.Errorf("logs = %q", out)
		}
	})
	t.Run("exec passes the exit code on", func(t *testing.T) {
		out, err := shared.command(t.Context(), "kubectl", "exec", "inside", "--", "/ko-app/none")
		if err == nil {
			t.Errorf("exec of a missing program succeeded: %s", out)
		}
	})
	t.Run("port-forward", func(t *testing.T) { portForward(t, "inside") })
	t.Run("top", func(t *testing.T) {
		eventually(t, "kubectl top", func() (bool, string) {
			out, err := shared.command(t.Context(), "kubectl", "top", "pod", "inside")
			return err == nil && strings.Contains(out, "inside") && strings.Contains(out, "Mi"), out
		})
		eventually(t, "kubectl top node", func() (bool, string) {
			out, err := shared.command(t.Context(), "kubectl", "top", "node")
			return err == nil && strings.Contains(out, "%"), out
		})
	})
}

func portForward(t *testing.T, name string) {
	t.Helper()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(address, ":")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, shared.bin, "kubectl", "--data", shared.data, "port-forward", "pod/"+name, port+":8080")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	eventually(t, "an answer by port-forward", func() (bool, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, http.NoBody)
		if err != nil {
			return false, err.Error()
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		return err == nil && strings.Contains(string(body), "Hello from "+name), string(body)
	})
}

func TestServicesAndNames(t *testing.T) {
	image := greeter(t, shared, "names-source")
	shared.apply(t, pod("server", image, ""))
	shared.apply(t, pod("client", image, ""))
	shared.apply(t, `apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: LoadBalancer
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: server}
  ports: [{port: 8080}]
`)
	awaitPod(t, "server")
	awaitPod(t, "client")
	clientIP := shared.jsonpath(t, "pod/client", "{.status.podIP}")
	clusterIP := shared.jsonpath(t, "svc/server", "{.spec.clusterIP}")
	nodeIP := shared.jsonpath(t, "nodes", "{.items[0].status.addresses[0].address}")
	var balancer string
	eventually(t, "a LoadBalancer address", func() (bool, string) {
		balancer = shared.jsonpath(t, "svc/server", "{.status.loadBalancer.ingress[0].ip}")
		return strings.Count(balancer, ".") == 3, balancer
	})
	nodePort := shared.jsonpath(t, "svc/server", "{.spec.ports[0].nodePort}")
	for name, url := range map[string]string{
		"cluster IP":            "http://" + clusterIP,
		"short name":            "http://server",
		"full name":             "http://server.default.svc.cluster.local",
		"headless":              "http://headless.default:8080",
		"node port":             "http://" + nodeIP + ":" + nodePort,
		"load balancer":         "http://" + balancer,
		"a service's own URL":   "http://names-source.default.svc.cluster.local",
		"a service's route URL": "http://names-source.default.localhost",
	} {
		t.Run(name, func(t *testing.T) {
			eventually(t, url, func() (bool, string) {
				body, err := direct(t, fmt.Sprintf("http://%s:8080/?call=%s", clientIP, url))
				return err == nil && strings.Contains(body, "200 Hello from "), body
			})
		})
	}
	t.Run("from the host", func(t *testing.T) {
		for _, url := range []string{"http://" + clusterIP, "http://" + balancer} {
			if body, err := direct(t, url); err != nil || !strings.Contains(body, "Hello from server") {
				t.Errorf("GET %s = %q, %v", url, body, err)
			}
		}
	})
	t.Run("the registry is out of a pod's reach", func(t *testing.T) {
		registry := statusField(t, "images")
		_, port, _ := strings.Cut(registry, ":")
		body, err := direct(t, fmt.Sprintf("http://%s:8080/?call=http://%s:%s/v2/", clientIP, nodeIP, port))
		if err == nil && strings.HasPrefix(body, "200") {
			t.Errorf("a pod read the registry: %q", body)
		}
	})
}

// statusField reads a word of `ebb status`.
func statusField(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.SplitSeq(shared.do(t, "status"), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return fields[1]
		}
	}
	t.Fatalf("status prints no %s", name)
	return ""
}

// direct fetches a URL by address from this machine.
func direct(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func TestVolumesFollowTheirSources(t *testing.T) {
	image := greeter(t, shared, "volumes-source")
	config := func(v string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: " + v + "}\n"
	}
	shared.apply(t, config("red"))
	shared.apply(t, `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
`)
	shared.apply(t, pod("volumes", image, `    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: disk, mountPath: /disk}
  securityContext: {fsGroup: 65532}
  volumes:
  - name: settings
    configMap: {name: settings}
  - name: disk
    persistentVolumeClaim: {claimName: disk}
`))
	awaitPod(t, "volumes")
	ip := shared.jsonpath(t, "pod/volumes", "{.status.podIP}")
	if body, err := direct(t, "http://"+ip+":8080/?read=/settings/color"); err != nil || body != "red" {
		t.Errorf("config map file = %q, %v", body, err)
	}
	if body, err := direct(t, "http://"+ip+":8080/?read=/var/run/secrets/kubernetes.io/serviceaccount/token"); err != nil || strings.Count(body, ".") != 2 {
		t.Errorf("service account token = %q, %v", body, err)
	}
	shared.apply(t, config("blue"))
	eventually(t, "the changed config map in the pod", func() (bool, string) {
		body, err := direct(t, "http://"+ip+":8080/?read=/settings/color")
		return err == nil && body == "blue", body
	})
	if _, err := direct(t, "http://"+ip+":8080/?write=/disk/kept&data=precious"); err != nil {
		t.Fatal(err)
	}
	shared.do(t, "kubectl", "delete", "pod", "volumes")
	shared.apply(t, pod("second", image, `    volumeMounts:
    - {name: disk, mountPath: /disk}
  volumes:
  - name: disk
    persistentVolumeClaim: {claimName: disk}
`))
	awaitPod(t, "second")
	ip = shared.jsonpath(t, "pod/second", "{.status.podIP}")
	if body, err := direct(t, "http://"+ip+":8080/?read=/disk/kept"); err != nil || body != "precious" {
		t.Errorf("file on the claim = %q, %v", body, err)
	}
}

func TestJobsAndMemoryLimits(t *testing.T) {
	image := greeter(t, shared, "jobs-source")
	shared.apply(t, fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: failing}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: %q, env: [{name: EXIT, value: "3"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fine}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: %q, env: [{name: EXIT, value: "0"}]}
`, image, image))
	eventually(t, "both jobs ended", func() (bool, string) {
		seen := shared.jsonpath(t, "job/failing", "{.status.failed}") + shared.jsonpath(t, "job/fine", "{.status.succeeded}")
		return seen == "11", seen
	})
	shared.apply(t, pod("hungry", image, "    resources: {limits: {memory: 64Mi}}\n"))
	awaitPod(t, "hungry")
	ip := shared.jsonpath(t, "pod/hungry", "{.status.podIP}")
	_, _ = direct(t, "http://"+ip+":8080/?eat=256")
	eventually(t, "the container killed for memory and restarted", func() (bool, string) {
		seen := shared.jsonpath(t, "pod/hungry", "{.status.containerStatuses[0].lastState.terminated.reason} {.status.containerStatuses[0].restartCount}")
		return seen == "OOMKilled 1", seen
	})
}

// pod is a manifest of one pod with the suite's workload, open at the container.
func pod(name, image, rest string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: %q
%s`, name, name, image, rest)
}

func awaitPod(t *testing.T, name string) {
	t.Helper()
	eventually(t, "pod "+name+" ready", func() (bool, string) {
		seen := shared.jsonpath(t, "pod/"+name, `{.status.conditions[?(@.type=="Ready")].status} {.status.phase} {.status.containerStatuses[0].state}`)
		return strings.HasPrefix(seen, "True"), seen
	})
}
