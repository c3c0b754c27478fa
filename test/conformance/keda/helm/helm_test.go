package main

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRun(t *testing.T) {
	cases := map[string]struct {
		line string
		want []string // what kubectl is told
		has  []string // what is applied
		err  string
	}{
		"charts are here": {line: "repo add nats https://x"},
		"an installed chart is waited for": {
			line: "install --wait --timeout 900s one --namespace two --version 0.28.0 --set architecture=cluster --set auth.password=pw oci://r/redis",
			want: []string{
				"apply --namespace two -f -",
				"get statefulset --namespace two -l app.kubernetes.io/instance=one -o name",
				"rollout status statefulset.apps/one --namespace two --timeout 900s",
			},
			has: []string{"name: one-headless", "cluster-enabled yes", `value: "pw"`},
		},
		"an upgrade installs": {
			line: "upgrade --install --set config.cluster.replicas=3 --version 1.1.2 --namespace n nats nats/nats",
			want: []string{"apply --namespace n -f -"},
			has:  []string{"name: nats-headless", "nats://nats-2.nats-headless:6222", "no_advertise: false"},
		},
		"the older chart is another": {
			line: "upgrade --install --set replicas=3 --set cluster.noAdvertise=true --version 0.18.2 --namespace n nats nats/nats",
			want: []string{"apply --namespace n -f -"},
			has:  []string{"clusterIP: None", "nats://nats-2.nats:6222", "no_advertise: true"},
		},
		"a release is removed by its label": {
			line: "delete --namespace n --wait etcd",
			want: []string{"delete statefulset,service,configmap,secret,pod --namespace n -l app.kubernetes.io/instance=etcd --ignore-not-found --wait=true"},
		},
		"a chart that is not there": {line: "install a b/c", err: "finding chart c"},
		"a command that is none":    {line: "frobnicate", err: `unknown command "frobnicate"`},
		"a flag that is none":       {line: "install --x y a b", err: "unknown flag --x"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var told []string
			var applied string
			do := func(_ context.Context, stdin string, args ...string) (string, error) {
				told = append(told, strings.Join(args, " "))
				applied += stdin
				if args[0] == "get" {
					return "statefulset.apps/one\n", nil
				}
				return "", nil
			}
			err := run(t.Context(), strings.Fields(c.line), do)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, told); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for _, part := range c.has {
				if !strings.Contains(applied, part) {
					t.Errorf("%q is not in\n%s", part, applied)
				}
			}
		})
	}
}
