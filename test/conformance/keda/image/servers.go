package image

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"ebb.dev/ebb/test/conformance/kit/image"
)

// entry holds scripts that set servers up as their images do, of what pods say in their environment.
//
//go:embed entry
var entry embed.FS

// servers are the images of what the distribution has.
func servers() []Image {
	with := func(i Image, script string, trees ...string) Image {
		if script != "" {
			i.Entrypoint = []string{"/entry/" + script}
		}
		more := i.Fill
		i.Fill = func(ctx context.Context, f *image.Files) error {
			if err := scripts(f); err != nil {
				return err
			}
			for _, tree := range trees {
				found, err := filepath.Glob(tree)
				if err != nil || len(found) == 0 {
					return fmt.Errorf("finding %s: there is none (%w)", tree, err)
				}
				for _, at := range found {
					if err := f.Tree(ctx, at); err != nil {
						return err
					}
				}
			}
			if more != nil {
				return more(ctx, f)
			}
			return nil
		}
		return i
	}
	const postgres, mysql = 999, 998
	folders := func(owner int, all ...string) func(context.Context, *image.Files) error {
		return func(_ context.Context, f *image.Files) error {
			for _, at := range all {
				f.Folder(at, 0o755, owner)
			}
			return nil
		}
	}
	return []Image{
		with(Image{For: "/redis", Names: []string{"docker.io/library/redis:7"}}, "", "/usr/bin/redis-check-rdb", "/usr/bin/redis-server", "/usr/bin/redis-sentinel", "/usr/bin/redis-cli"),
		with(Image{
			For: "rabbitmq|scaling_strategies|scaled_job_conditions", Names: []string{"docker.io/library/rabbitmq:3.12-management"},
			Image: image.Image{Env: []string{"HOME=/var/lib/rabbitmq", "LANG=C.UTF-8"}},
			Fill: func(ctx context.Context, f *image.Files) error {
				f.Link("/usr/sbin/rabbitmqctl", "/entry/rabbitmqctl")
				return folders(0, "/var/lib/rabbitmq", "/var/log/rabbitmq")(ctx, f)
			},
		}, "rabbitmq", "/usr/lib/erlang", "/usr/bin/erl", "/usr/bin/escript", "/usr/lib/rabbitmq"),
		with(Image{
			For: "postgresql", Names: []string{"docker.io/library/postgres:10.5"},
			Image: image.Image{User: "999:999", Path: ":/usr/lib/postgresql/15/bin", Env: []string{"PGDATA=/var/lib/postgresql/data"}},
			Fill:  folders(postgres, "/var/lib/postgresql", "/var/lib/postgresql/data", "/var/run/postgresql", "/etc/postgresql", "/docker-entrypoint-initdb.d"),
		}, "postgres", "/usr/lib/postgresql/15", "/usr/share/postgresql/15", "/usr/share/zoneinfo/Etc", "/usr/share/zoneinfo/UTC"),
		with(Image{
			For: "mysql", Names: []string{"docker.io/library/mysql:8.0.20"},
			Image: image.Image{User: "998:998"},
			Fill:  folders(mysql, "/var/lib/mysql", "/var/run/mysqld", "/run/mysqld"),
		}, "mysql", "/usr/sbin/mariadbd", "/usr/bin/mysql", "/usr/bin/mariadb", "/usr/bin/my_print_defaults", "/usr/bin/resolveip",
			"/usr/bin/mariadb-install-db", "/usr/share/mysql"),
		with(Image{For: "nats", Names: []string{"docker.io/library/nats:2.9.3-alpine"}, Fill: func(_ context.Context, f *image.Files) error {
			f.Link("/nats-server", "/usr/sbin/nats-server")
			return nil
		}}, "", "/usr/sbin/nats-server"),
		with(Image{For: "etcd", Names: []string{"gcr.io/etcd-development/etcd:v3.4.10"}}, "", "/usr/bin/etcd", "/usr/bin/etcdctl"),
		with(Image{For: "prometheus", Names: []string{"docker.io/prom/prometheus:v2.47.1"}}, "prometheus",
			"/usr/bin/prometheus", "/usr/share/prometheus"),
		with(Image{For: "beanstalkd", Names: []string{"docker.io/schickling/beanstalkd:latest"}, Image: image.Image{Entrypoint: []string{"/usr/bin/beanstalkd"}}}, "",
			"/usr/bin/beanstalkd"),
		with(Image{
			For: "graphite", Names: []string{"docker.io/graphiteapp/graphite-statsd:1.1.7-6"},
			Fill: graphite,
		}, "graphite", "/usr/bin/python3", "/usr/bin/python3.11", "/usr/lib/python3.11", "/usr/lib/python3", "/usr/share/graphite-web",
			"/usr/share/zoneinfo", "/usr/bin/twistd3", "/usr/bin/carbon-cache", "/usr/bin/graphite-manage", "/usr/lib/*-linux-gnu/libcairo.so.2*",
			"/usr/lib/*-linux-gnu/libgobject-2.0.so.0*", "/usr/lib/*-linux-gnu/libxcb.so.1*", "/usr/lib/*-linux-gnu/ossl-modules"),
		with(Image{
			Names: []string{"ghcr.io/nginx/nginx-unprivileged:1.26"},
			Image: image.Image{User: "101"},
			Fill:  folders(101, "/etc/nginx/conf.d", "/var/lib/nginx", "/var/log/nginx"),
		}, "nginx", "/usr/sbin/nginx"),
	}
}

// graphite adds settings and a database with its tables, which take longer to make than a pod's probe waits.
func graphite(ctx context.Context, f *image.Files) error {
	f.Link("/usr/lib/python3/dist-packages/graphite/local_settings.py", "/entry/graphite.py")
	f.Folder("/opt/graphite/storage", 0o755, 0)
	libraries, err := filepath.Glob("/usr/lib/*-linux-gnu/libxcb.so.1")
	if err != nil || len(libraries) == 0 {
		return fmt.Errorf("finding libxcb: there is none (%w)", err)
	}
	f.Link("/usr/lib/libxcb.so", libraries[0]) // asked for by this name where no ldconfig is
	settings, err := entry.ReadFile("entry/graphite.py")
	if err != nil {
		return fmt.Errorf("adding settings: %w", err)
	}
	dir, err := os.MkdirTemp("", "graphite-")
	if err != nil {
		return fmt.Errorf("making a database: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.WriteFile(filepath.Join(dir, "here.py"), settings, 0o600); err != nil {
		return fmt.Errorf("making a database: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "/usr/bin/graphite-manage", "migrate", "--run-syncdb", "--no-input")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "GRAPHITE_SETTINGS_MODULE=here", "DJANGO_SETTINGS_MODULE=graphite.settings", "FOLDER="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a database: %w\n%s", err, out)
	}
	database, err := os.ReadFile(filepath.Join(dir, "graphite.db"))
	if err != nil {
		return fmt.Errorf("making a database: %w", err)
	}
	f.Add("/opt/graphite/graphite.db", 0o644, database)
	return nil
}

func scripts(f *image.Files) error {
	err := fs.WalkDir(entry, "entry", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := entry.ReadFile(at)
		f.Add("/"+at, 0o755, content)
		return err
	})
	if err != nil {
		return fmt.Errorf("adding scripts: %w", err)
	}
	return nil
}
