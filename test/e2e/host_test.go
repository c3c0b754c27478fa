package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestPodsOnTheHostsNetworkAreReached(t *testing.T) {
	image := greeter(t, shared, "shared-source")
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(address, ":")
	shared.apply(t, pod("on-host", image, fmt.Sprintf(`    env: [{name: PORT, value: %q}]
    ports: [{containerPort: %s}]
    readinessProbe: {httpGet: {port: %s}, periodSeconds: 1}
  hostNetwork: true
`, port, port, port)))
	shared.apply(t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: on-host}
spec:
  selector: {app: on-host}
  ports: [{port: 80, targetPort: %s}]
`, port))
	shared.apply(t, pod("beside", image, ""))
	awaitPod(t, "on-host")
	awaitPod(t, "beside")
	ip := shared.jsonpath(t, "pod/beside", "{.status.podIP}")
	eventually(t, "an answer from the host's network", func() (bool, string) {
		body, err := direct(t, "http://"+ip+":8080/?call=http://on-host")
		return err == nil && strings.HasPrefix(body, "200 "), body
	})
}

func TestWhatPodsAskForInVainIsSaid(t *testing.T) {
	image := greeter(t, shared, "vain-source")
	shared.apply(t, pod("own-users", image, "  hostUsers: false\n"))
	shared.apply(t, pod("host-port", image, "    ports: [{containerPort: 8080, hostPort: 29996}]\n"))
	for name, want := range map[string]string{"own-users": "hostUsers", "host-port": "29996"} {
		eventually(t, "an event of "+name, func() (bool, string) {
			out, err := shared.command(t.Context(), "kubectl", "get", "events", "--field-selector", "involvedObject.name="+name+",type=Warning")
			return err == nil && strings.Contains(out, want), out
		})
	}
	if seen := shared.jsonpath(t, "pod/own-users", "{.status.phase}"); seen != "Pending" {
		t.Errorf("a pod without the users it asked for is %s", seen)
	}
}

func TestContainersStartWithAPlainState(t *testing.T) {
	image := greeter(t, shared, "plain-source")
	shared.apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\ndata: {color: red}\n")
	shared.apply(t, pod("plain", image, `    volumeMounts: [{name: settings, mountPath: /settings}]
    securityContext: {runAsUser: 0}
  volumes: [{name: settings, configMap: {name: plain}}]
`))
	awaitPod(t, "plain")
	base := "http://" + shared.jsonpath(t, "pod/plain", "{.status.podIP}") + ":8080/"
	for name, c := range map[string]struct{ query, want string }{
		// Of the mask's last digits: a signal of the C library's own, the 32nd, may come down ignored.
		"no signal is ignored":         {"?read=/proc/self/status", "0000000\nSigCgt"},
		"system calls are filtered":    {"?read=/proc/self/status", "Seccomp:\t2\n"},
		"settings cannot be written":   {"?write=/settings/new&data=x", "read-only file system"},
		"the kernel is not written to": {"?write=/proc/sys/kernel/hostname&data=h", "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			if body, err := direct(t, base+c.query); err != nil || !strings.Contains(body, c.want) {
				t.Errorf("%s = %q, %v; want %q", c.query, body, err, c.want)
			}
		})
	}
}

// TestPrivatePartsAskForCredentials calls every listener of the control plane that a pod can reach.
func TestPrivatePartsAskForCredentials(t *testing.T) {
	node := shared.jsonpath(t, "nodes", "{.items[0].status.addresses[0].address}")
	_, api, _ := strings.Cut(shared.api, ":")
	for name, c := range map[string]struct {
		url  string
		want string
	}{
		"logs by the node":   {"https://" + node + ":10250/containerLogs/default/x/y", "401"},
		"pods by the node":   {"https://" + node + ":10250/pods", "401"},
		"secrets by the API": {"https://" + node + ":" + api + "/api/v1/secrets", "403"},
		"metrics by the API": {"https://" + node + ":" + api + "/metrics", "403"},
		"a nodes proxy":      {"https://" + node + ":" + api + "/api/v1/nodes/x/proxy/pods", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			if status := withoutCredentials(t, c.url); status != c.want {
				t.Errorf("%s answered %s, want %s", c.url, status, c.want)
			}
		})
	}
}

// withoutCredentials asks without credentials, whatever the certificate, and returns the status or the error.
func withoutCredentials(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	return strconv.Itoa(res.StatusCode)
}
