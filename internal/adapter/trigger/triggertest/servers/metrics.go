package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// Prometheus runs one that scrapes a host and port all the time.
func Prometheus(t testing.TB, scraped string) Server {
	t.Helper()
	program, dir, port := process.Find(t, "prometheus"), t.TempDir(), process.Port(t)
	config, address := filepath.Join(dir, "prometheus.yml"), "127.0.0.1:"+port
	scrape := "scrape_configs: [{job_name: test, scrape_interval: 100ms, scrape_timeout: 100ms, static_configs: [{targets: ['" + scraped + "']}]}]\n"
	if err := os.WriteFile(config, []byte(scrape), 0o600); err != nil {
		t.Fatal(err)
	}
	return Server{process.Start(t, process.Program{
		Path: program, Dir: dir, Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=error",
		},
		Ready: func(ctx context.Context) error { return Get(ctx, "http://"+address+"/-/ready") },
	}), address}
}

// A Graphite is a carbon that takes points and a web application that shows them, by host and port.
type Graphite struct{ Carbon, Web string }

// settings are the web application's.
const settings = `SECRET_KEY = 'test'
STORAGE_DIR = LOG_DIR = WHISPER_DIR = '$dir'
STANDARD_DIRS = [WHISPER_DIR]
CONF_DIR = '$dir'
INDEX_FILE = '$dir/index'
LOG_FILE_INFO = LOG_FILE_EXCEPTION = LOG_FILE_CACHE = LOG_FILE_RENDERING = '-'
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '$dir/db'}}
DEFAULT_CACHE_DURATION = FIND_CACHE_DURATION = 0
CARBONLINK_HOSTS = ['127.0.0.1:$queries']
ALLOWED_HOSTS = ['*']
`

const carbon = `[cache]
LOCAL_DATA_DIR = $dir/
LOG_DIR = $dir/
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = $points
PICKLE_RECEIVER_PORT = 0
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = $queries
ENABLE_UDP_LISTENER = False
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
USER =
ENABLE_TAGS = False
CARBON_METRIC_INTERVAL = 0
`

// StartGraphite runs one.
func StartGraphite(t testing.TB) Graphite {
	t.Helper()
	cache, manage := process.Find(t, "carbon-cache"), process.Find(t, "graphite-manage")
	dir, points, queries, web := t.TempDir(), process.Port(t), process.Port(t), process.Port(t)
	for name, content := range map[string]string{
		"ebb_settings.py": settings, "carbon.conf": carbon, "storage-schemas.conf": "[all]\npattern = .*\nretentions = 1s:1h\n",
	} {
		content = strings.NewReplacer("$dir", dir, "$points", points, "$queries", queries).Replace(content)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := Graphite{Carbon: "127.0.0.1:" + points, Web: "127.0.0.1:" + web}
	process.Start(t, process.Program{
		Path: "/usr/bin/env", Dir: dir, Args: []string{
			"GRAPHITE_ROOT=" + dir, cache, "--config=" + filepath.Join(dir, "carbon.conf"), "--nodaemon", "start",
		},
		Ready: func(ctx context.Context) error { return dial(ctx, s.Carbon) },
	})
	process.Start(t, process.Program{
		Path: "/usr/bin/env", Dir: dir, Args: []string{
			"PYTHONPATH=" + dir, "GRAPHITE_SETTINGS_MODULE=ebb_settings", manage, "runserver", "--noreload", s.Web,
		},
		Ready: func(ctx context.Context) error { return Get(ctx, "http://"+s.Web+"/render?target=none&format=json") },
	})
	return s
}

// Put adds a point.
func (s Graphite) Put(t testing.TB, metric string, value float64) {
	t.Helper()
	c, err := net.Dial("tcp", s.Carbon)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "%s %g %d\n", metric, value, time.Now().Unix()); err != nil {
		t.Fatal(err)
	}
}
