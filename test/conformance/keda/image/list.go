package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"ebb.dev/ebb/test/conformance/kit/image"
)

// everybody may write to a folder with these permissions.
const everybody = 0o1777

// standIns are the images that hold programs of our own, each under the name by which it knows what to do.
func standIns() []Image {
	const (
		kedacore = "ghcr.io/kedacore/tests-"
		library  = "docker.io/library/"
		nobody   = "65532"
	)
	is := func(program string, names ...string) Image {
		return Image{Names: names, Image: image.Image{Entrypoint: []string{"/stand/" + program}}}
	}
	as := func(i Image, user string, env ...string) Image {
		i.User, i.Env = user, env
		return i
	}
	linked := func(to, at string, names ...string) Image {
		return Image{Names: names, Links: map[string]string{at: to}, Image: image.Image{Entrypoint: []string{at}}}
	}
	return []Image{
		{Names: []string{library + "busybox:latest", "docker.io/curlimages/curl:latest"}, Fill: curl},
		is("web", library+"nginx:latest", library+"nginx:1.14.2"),
		is("sums", "registry.k8s.io/hpa-example:latest"),
		is("metrics-api", kedacore+"metrics-api:latest"),
		is("external-scaler", kedacore+"external-scaler:latest"),
		is("external-scaler-old", kedacore+"external-scaler-e2e:latest", kedacore+"external-scaler:5167ec1"),
		is("cloudevents-http", kedacore+"cloudevents-http:latest"),
		is("rollouts", "quay.io/argoproj/argo-rollouts:v1.10.0"),
		is("redis-lists", kedacore+"redis-lists:latest"),
		as(linked("redis-lists", "/main", kedacore+"redis-cluster-lists:latest"), "", "REDIS_MODE=CLUSTER"),
		as(linked("redis-lists", "/main", kedacore+"redis-sentinel-lists:latest"), "", "REDIS_MODE=SENTINEL"),
		linked("redis-streams", "/main", kedacore+"redis-streams:latest"),
		{Names: []string{kedacore + "rabbitmq:latest"}, Links: map[string]string{"/usr/local/bin/send": "send", "/usr/local/bin/receive": "receive"}},
		linked("tasks", "/app", kedacore+"postgresql:latest", kedacore+"mysql:latest"),
		linked("orders", "/app", kedacore+"nats-jetstream:latest"),
		linked("nats", "/usr/local/bin/nats", "docker.io/natsio/nats-box:0.13.2"),
		is("queue", kedacore+"nsq:latest"),
		{Names: []string{"docker.io/nsqio/nsq:v1.3.0"}},
		as(is("counter", kedacore+"prometheus:latest"), nobody),
		as(linked("hey", "/hey", kedacore+"hey:latest"), nobody),
		is("configmap-reload", "docker.io/jimmidyson/configmap-reload:v0.3.0"),
		linked("beanstalkd-cli", "/usr/local/bin/beanstalkd-cli", "docker.io/sitecrafting/beanstalkd-cli:latest"),
	}
}

// base is a shell with the usual tools, the stand-ins by all their names, and what programs look for.
func base(ctx context.Context, f *image.Files, stand string) error {
	content, err := os.ReadFile(stand)
	if err != nil {
		return fmt.Errorf("adding stand-ins: %w", err)
	}
	f.Add("/stand/stand", 0o755, content)
	names, err := exec.CommandContext(ctx, stand).Output()
	if err != nil {
		return fmt.Errorf("asking stand-ins for their names: %w", err)
	}
	for name := range strings.FieldsSeq(string(names)) {
		f.Link("/stand/"+name, "stand")
	}
	const busybox = "/bin/busybox"
	if content, err = os.ReadFile(busybox); err != nil {
		return fmt.Errorf("adding shell: %w", err)
	}
	f.Add(busybox, 0o755, content)
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("asking Busybox for its tools: %w", err)
	}
	for tool := range strings.FieldsSeq(string(out)) {
		switch tool {
		case "busybox":
		case "nc": // Busybox is linked so that it finds no host by name
			f.Link("/bin/nc", "/stand/nc")
		default:
			f.Link("/bin/"+tool, "busybox")
		}
	}
	f.Folder("/tmp", everybody, 0)
	f.Add("/etc/passwd", 0o644, []byte(`root:x:0:0:root:/root:/bin/sh
postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh
mysql:x:998:998:mysql:/var/lib/mysql:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
`))
	f.Add("/etc/group", 0o644, []byte("root:x:0:\npostgres:x:999:\nmysql:x:998:\nnogroup:x:65534:\n"))
	return nil
}

func curl(ctx context.Context, f *image.Files) error {
	return f.Program(ctx, "/usr/bin/curl", "/usr/bin/curl")
}
