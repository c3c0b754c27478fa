package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestSecondUpIsRefused(t *testing.T) {
	out, err := shared.command(t.Context(), "up", "--detach", "--http", "127.0.0.1:0", "--api", "127.0.0.1:0")
	if err == nil || !strings.Contains(out, "already running") || !strings.Contains(out, "ebb down") {
		t.Errorf("second up = %v: %s", err, out)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	other, err := newInstallation(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	for flag, taken := range map[string][]string{
		"--http":  {"--http", shared.http, "--https", other.https},
		"--https": {"--http", other.http, "--https", shared.https},
	} {
		args := append([]string{"up", "--detach", "--api", other.api}, taken...)
		out, err := other.command(t.Context(), args...)
		if address := map[string]string{"--http": shared.http, "--https": shared.https}[flag]; err == nil || !strings.Contains(out, address) || !strings.Contains(out, flag+" ") {
			t.Errorf("up on a port in use = %v: %s", err, out)
		}
	}
}

func TestStatusOfAFolderWithoutEbb(t *testing.T) {
	other := &installation{bin: shared.bin, data: filepath.Join(t.TempDir(), "none")}
	out, err := other.command(t.Context(), "status")
	if err == nil || !strings.Contains(out, "stopped") {
		t.Errorf("status = %v: %s", err, out)
	}
}

func TestSurvivesAKillAndContinuesAfterDown(t *testing.T) {
	i := fresh(t)
	image := greeter(t, i, "source")
	i.apply(t, service("steady", image, `autoscaling.knative.dev/min-scale: "1"`))
	awaitReady(t, i, "steady")
	claimDomains(t, i)
	i.apply(t, mapping("steady.e2e.example", "default", "serving.knative.dev/v1", "Service", "steady"))
	awaitConditions(t, i, "steady.e2e.example", "default", "Ready=True")
	i.get(t, host("steady"), "/")
	const about = `{range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}{"\n"}{end}`
	before := podsOf(t, i, "steady", about)

	kill(t, i)
	if out, err := i.command(t.Context(), "status"); err == nil || !strings.Contains(out, "stopped") {
		t.Errorf("status after kill -9 = %v: %s", err, out)
	}
	i.up(t)
	if body := i.get(t, host("steady"), "/"); !strings.Contains(body, "Hello") {
		t.Errorf("body after a crash = %q", body)
	}
	i.get(t, "steady.e2e.example", "/")
	if after := podsOf(t, i, "steady", about); after != before {
		t.Errorf("pods after a crash:\n%s\nbefore:\n%s", after, before)
	}

	i.do(t, "down")
	i.up(t)
	awaitReady(t, i, "steady")
	i.get(t, host("steady"), "/")
	i.get(t, "steady.e2e.example", "/")
	i.get(t, host("source"), "/")
}

func podsOf(t *testing.T, i *installation, name, path string) string {
	t.Helper()
	return strings.TrimSpace(i.do(t, "kubectl", "get", "pods", "-l", "serving.knative.dev/service="+name, "-o", "jsonpath="+path))
}

// kill ends ebb as a crash would: no handler runs.
func kill(t *testing.T, i *installation) {
	t.Helper()
	pid := i.pid(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "process gone", func() (bool, string) {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		return os.IsNotExist(err), "process " + strconv.Itoa(pid)
	})
}

func (i *installation) pid(t *testing.T) int {
	t.Helper()
	for line := range strings.SplitSeq(i.do(t, "status"), "\n") {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "pid" {
			pid, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("status prints no pid")
	return 0
}

func TestDownLeavesNothingBehind(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *installation){
		"after an orderly run": func(*testing.T, *installation) {},
		"after a kill":         kill,
	} {
		t.Run(name, func(t *testing.T) {
			i, err := newInstallation(filepath.Join(t.TempDir(), "data"))
			if err != nil {
				t.Fatal(err)
			}
			i.up(t)
			greeter(t, i, "left")
			i.get(t, host("left"), "/")
			end(t, i)
			i.do(t, "down")
			for what, found := range leftovers(t, i) {
				t.Errorf("%s left behind:\n%s", what, found)
			}
			i.do(t, "reset", "--yes")
			if _, err := os.Stat(i.data); !os.IsNotExist(err) {
				t.Errorf("data folder after reset: %v", err)
			}
		})
	}
}

// leftovers looks for anything on the machine that still names the installation.
func leftovers(t *testing.T, i *installation) map[string]string {
	t.Helper()
	identity, err := os.ReadFile(filepath.Join(i.data, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(identity), `"id": "`)
	id, _, _ := strings.Cut(rest, `"`)
	found := map[string]string{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if strings.Contains(line, i.data) || strings.Contains(line, id) {
			found["mounts"] += line + "\n"
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.Contains(link.Name(), id) {
			found["links"] += link.Name() + "\n"
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/ebb-" + id, "/sys/fs/cgroup/ebb-" + id} {
		groups, _ := filepath.Glob(pattern)
		if len(groups) > 0 {
			found["cgroups"] += strings.Join(groups, "\n") + "\n"
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		data, err := os.ReadFile(file)
		if err == nil && (strings.Contains(string(data), i.data) || strings.Contains(string(data), "ebb-"+id)) {
			found["processes"] += file + " " + strings.ReplaceAll(string(data), "\x00", " ") + "\n"
		}
	}
	return found
}

func TestTwoSideBySide(t *testing.T) {
	i := fresh(t)
	greeter(t, i, "twin", "GREETING=second")
	greeter(t, shared, "twin", "GREETING=first")
	if body := i.get(t, host("twin"), "/"); !strings.Contains(body, "second") {
		t.Errorf("second installation answered %q", body)
	}
	if body := shared.get(t, host("twin"), "/"); !strings.Contains(body, "first") {
		t.Errorf("first installation answered %q", body)
	}
}

func TestUnknownHostSaysWhatToDo(t *testing.T) {
	status, body, _, err := shared.request(context.Background(), "nobody.default.localhost", "/")
	if err != nil || status != http.StatusNotFound || !strings.Contains(body, "nobody.default.localhost") {
		t.Errorf("unknown host: %d %v %q", status, err, body)
	}
}
