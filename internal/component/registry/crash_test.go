package registry

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
)

// crashFolder names the folder to serve in the process that TestKilledWhilePushing kills.
const crashFolder = "EBB_TEST_REGISTRY_FOLDER"

// TestServeForCrash is that process; alone it does nothing.
func TestServeForCrash(t *testing.T) {
	dir := os.Getenv(crashFolder)
	if dir == "" {
		return
	}
	r, err := New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(os.Stdout, "address", ln.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := r.Serve(t.Context(), ln); err != nil {
		t.Fatal(err)
	}
}

// TestKilledWhilePushing kills the registry in the middle of pushes, again and again on one folder,
// and checks every byte of every tag it had promised.
func TestKilledWhilePushing(t *testing.T) {
	dir := t.TempDir()
	promised := map[string]string{}
	for round := range 4 {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServeForCrash$")
		command.Env = append(os.Environ(), crashFolder+"="+dir)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		addr := strings.TrimSpace(strings.TrimPrefix(line, "address "))
		for i := 0; ; i++ {
			if i == 1+round { // in the middle of this push, or of one soon after
				time.AfterFunc(time.Duration(2+5*round)*time.Millisecond, func() { _ = command.Process.Kill() })
			}
			img := randomImage(t)
			tag := fmt.Sprintf("app%d:r%d-%d", i%3, round, i)
			if err := crane.Push(img, addr+"/"+tag, crane.WithContext(t.Context())); err != nil {
				if i <= round {
					t.Fatalf("push %d, before anything was killed: %v", i, err)
				}
				break
			}
			promised[tag] = digestOf(t, img)
		}
		_ = command.Wait() // killed, as meant
	}
	_, addr := serve(t, Config{Dir: dir})
	for tag, want := range promised {
		if got := digestOf(t, pullWhole(t, addr+"/"+tag)); got != want {
			t.Errorf("%s: %s, want %s", tag, got, want)
		}
	}
	repos, err := crane.Catalog(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range repos {
		tags, err := crane.ListTags(addr + "/" + repo)
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range tags {
			pullWhole(t, addr+"/"+repo+":"+tag)
		}
	}
	t.Logf("%d tags were promised over four kills", len(promised))
}
