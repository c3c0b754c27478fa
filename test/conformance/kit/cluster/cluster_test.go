package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRegistry(t *testing.T) {
	cases := map[string]struct{ status, want string }{
		"the status names it":            {`{"state":"ready","registry":"127.0.0.1:5000"}`, "127.0.0.1:5000"},
		"an ebb that is not ready":       {`{"state":"starting"}`, ""},
		"a status that cannot be read":   {`{`, ""},
		"an ebb that was never up there": {"", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.status != "" {
				if err := os.WriteFile(filepath.Join(dir, "status.json"), []byte(c.status), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := (&Cluster{Data: dir}).Registry()
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
