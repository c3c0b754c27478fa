package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kn runs upstream's client, built by `make bin/kn`, against the shared installation.
func kn(t *testing.T, args ...string) (string, error) {
	t.Helper()
	bin, err := filepath.Abs(os.Getenv("EBB_KN"))
	if err != nil || os.Getenv("EBB_KN") == "" {
		t.Fatal("EBB_KN must name Knative's client; `make e2e` builds it and sets it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	home := t.TempDir() // kn keeps settings below it
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(shared.data, "kubeconfig"), "HOME="+home, "XDG_CONFIG_HOME="+home)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = cmd.Run()
	t.Logf("kn %s %s: %s", args[0], args[1], time.Since(began).Round(time.Millisecond))
	return out.String(), err
}

// knDo runs a command that must succeed and print something of each.
func knDo(t *testing.T, args []string, want ...string) string {
	t.Helper()
	out, err := kn(t, args...)
	if err != nil {
		t.Fatalf("kn %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, w := range want {
		if !strings.Contains(squeezed(out), w) {
			t.Errorf("kn %s does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

// squeezed makes columns comparable: one blank between words.
func squeezed(s string) string { return strings.Join(strings.Fields(s), " ") }

// knRefused runs a command that must fail and say why.
func knRefused(t *testing.T, args []string, why string) {
	t.Helper()
	if out, err := kn(t, args...); err == nil || !strings.Contains(out, why) {
		t.Errorf("kn %s: %v, want a failure that says %q:\n%s", strings.Join(args, " "), err, why, out)
	}
}

// words splits a command line without quotes.
func words(line string) []string { return strings.Fields(line) }

// knForget deletes a service when the test ends.
func knForget(t *testing.T, name string) {
	t.Cleanup(func() { _, _ = shared.command(context.Background(), "delete", name) })
}

func TestKnServiceFromCreateToDelete(t *testing.T) {
	t.Parallel()
	image, _, _ := strings.Cut(greeter(t, shared, "kn-source"), "@")
	knForget(t, "kn-life")
	knDo(t, words("service create kn-life --revision-name kn-life-one --env GREETING=one --label team=a --image "+image),
		"Ready to serve.", "Service 'kn-life' created to latest revision 'kn-life-one' is available at URL:", "http://kn-life.default.localhost")
	knRefused(t, words("service create kn-life --image "+image), "already exists")
	knDo(t, words("service update kn-life --revision-name kn-life-two --env GREETING=two --tag kn-life-one=old --traffic old=50 --traffic @latest=50"),
		"Service 'kn-life' updated to latest revision 'kn-life-two' is available at URL:")
	knDo(t, words("service list"), "NAME URL LATEST AGE CONDITIONS READY REASON", "kn-life-two", "3 OK / 3 True")
	knDo(t, words("service describe kn-life"), "50% @latest (kn-life-two) [2]", "50% kn-life-one #old [1]", "(pinned to ", "++ Ready", "++ RoutesReady")
	knDo(t, words("revision list -s kn-life"), "NAME SERVICE TRAFFIC TAGS GENERATION AGE CONDITIONS READY REASON", "kn-life-two kn-life 50% 2", "kn-life-one kn-life 50% old 1")
	knDo(t, words("revision describe kn-life-one"), "Service: kn-life", "GREETING=one", "Image: ", "++ Ready")
	knDo(t, words("route list kn-life"), "NAME URL READY", "True")
	knDo(t, words("route describe kn-life"), "50% @latest (kn-life-two)", "50% kn-life-one #old", "++ IngressReady")
	count := map[string]int{}
	for range 100 {
		count[strings.Fields(shared.get(t, host("kn-life"), "/"))[0]]++
	}
	if count["one"] < 20 || count["two"] < 20 || count["one"]+count["two"] != 100 {
		t.Errorf("100 requests at 50/50 gave %v", count)
	}
	if body := shared.get(t, "old-"+host("kn-life"), "/"); !strings.HasPrefix(body, "one") {
		t.Errorf("the tag answered %q", body)
	}
	knDo(t, words("service update kn-life --untag old --traffic @latest=100"), "Service 'kn-life'")
	knDo(t, words("revision delete kn-life-one"), "deleted")
	knDo(t, words("service delete kn-life --wait"), "Service 'kn-life' successfully deleted")
	knRefused(t, words("service describe kn-life"), "not found")
}

func TestKnWritesWhatItIsTold(t *testing.T) {
	t.Parallel()
	image, _, _ := strings.Cut(greeter(t, shared, "kn-told-source"), "@")
	knForget(t, "kn-told")
	shared.apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kn-told}\ndata: {GREETING: from-map, file: content}\n")
	knDo(t, words("service create kn-told --scale 1..3 --scale-window 7s --concurrency-limit 9 --concurrency-target 5 --timeout 20 --annotation note=kept"+
		" --env-from config-map:kn-told --mount /told=cm:kn-told --request cpu=10m --limit memory=64Mi --user 1000"+
		" --probe-readiness http::0:/ --probe-readiness-opts periodseconds=1 --cluster-local --image "+image), "Ready to serve.")
	for path, want := range map[string]string{
		`{.spec.template.metadata.annotations.autoscaling\.knative\.dev/min-scale}{.spec.template.metadata.annotations.autoscaling\.knative\.dev/max-scale}`: "13",
		`{.spec.template.spec.containerConcurrency} {.spec.template.spec.timeoutSeconds}`:                                                                    "9 20",
		`{.spec.template.metadata.annotations.client\.knative\.dev/user-image}`:                                                                              image,
		`{.metadata.labels.networking\.knative\.dev/visibility}`:                                                                                             "cluster-local",
		`{.status.url}`: "http://kn-told.default.svc.cluster.local",
	} {
		if seen := shared.jsonpath(t, "ksvc/kn-told", path); seen != want {
			t.Errorf("%s = %q, want %q", path, seen, want)
		}
	}
	knDo(t, words("service update kn-told --no-cluster-local --scale 2"), "http://kn-told.default.localhost")
	if body := shared.get(t, host("kn-told"), "/"); !strings.HasPrefix(body, "from-map") {
		t.Errorf("greeting %q, want the ConfigMap's", body)
	}
	if body := shared.get(t, host("kn-told"), "/?read=/told/file"); body != "content" {
		t.Errorf("mounted file %q, want the ConfigMap's", body)
	}
	if out := knDo(t, words("service export kn-told --with-revisions --mode replay -o yaml")); !strings.Contains(out, "kind: List") {
		t.Errorf("export printed %s", out)
	}
}

func TestKnApplies(t *testing.T) {
	t.Parallel()
	image := greeter(t, shared, "kn-applied-source")
	knForget(t, "kn-applied")
	apply := func(greeting, want string) {
		t.Helper()
		knDo(t, words("service apply kn-applied --env GREETING="+greeting+" --image "+image), want)
	}
	apply("one", "Service 'kn-applied' created to latest revision 'kn-applied-00001' is available at URL:")
	apply("one", "latest revision 'kn-applied-00001'") // what kn writes at creation differs from what it applies
	apply("one", "Service 'kn-applied' with latest revision 'kn-applied-00001' (unchanged)")
	apply("two", "Service 'kn-applied' applied to latest revision 'kn-applied-00002'")
	if body := shared.get(t, host("kn-applied"), "/"); !strings.HasPrefix(body, "two") {
		t.Errorf("answer %q after the second apply", body)
	}
}

func TestKnWaits(t *testing.T) {
	t.Parallel()
	image := greeter(t, shared, "kn-waited-source")
	for _, name := range []string{"kn-missing", "kn-slow"} {
		knForget(t, name)
	}
	knRefused(t, words("service create kn-missing --image ebb.local/default/not-there"), "RevisionFailed")
	knDo(t, words("service create kn-slow --no-wait --env START_DELAY=4s --image "+image), "Service 'kn-slow' created")
	began := time.Now()
	knRefused(t, words("service wait kn-slow --wait-timeout 1"), "timeout")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a wait of 1 s took %s", took)
	}
	knDo(t, words("service wait kn-slow --wait-timeout 60"), "Ready to serve.", "Service 'kn-slow' in namespace 'default' is ready.")
}

func TestKnMapsDomains(t *testing.T) {
	t.Parallel()
	greeter(t, shared, "kn-mapped")
	const domain = "kn-mapped.example.org"
	shared.apply(t, "apiVersion: networking.internal.knative.dev/v1alpha1\nkind: ClusterDomainClaim\nmetadata: {name: "+domain+"}\nspec: {namespace: default}\n")
	t.Cleanup(func() {
		_, _ = shared.command(context.Background(), "kubectl", "delete", "--ignore-not-found", "domainmapping/"+domain, "clusterdomainclaim/"+domain)
	})
	knDo(t, words("domain create "+domain+" --ref ksvc:kn-mapped"), "Domain mapping '"+domain+"' created in namespace 'default'.")
	awaitConditions(t, shared, domain, "default", "Ready=True")
	knDo(t, words("domain list"), "NAME URL READY KSVC", "True kn-mapped")
	knDo(t, words("domain describe "+domain), "Name: "+domain, "kn-mapped", "++ Ready")
	shared.get(t, domain, "/")
	knDo(t, words("domain delete "+domain), "Domain mapping '"+domain+"' deleted in namespace 'default'.")
	knRefused(t, words("domain describe "+domain), "not found")
}
