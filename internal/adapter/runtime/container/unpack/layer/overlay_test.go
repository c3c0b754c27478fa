package layer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// stack mounts layers, lowest first, and returns what is seen.
func stack(t *testing.T, layers ...string) string {
	t.Helper()
	seen := t.TempDir()
	lower := ""
	for _, l := range slices.Backward(layers) {
		lower += ":" + l
	}
	if err := unix.Mount("overlay", seen, "overlay", unix.MS_RDONLY, "lowerdir="+lower[1:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(seen, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return seen
}

func TestWhiteoutsHideWhatIsBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	below := mustUnpack(t,
		file("file", "below"), file("kept", "below"), file("folder/in", "below"), file("opaque/in", "below"),
		file("remade/in", "below"), file("remade-late/in", "below"), file("both", "below"), file("deep/a/b/c", "below"),
	)
	above := mustUnpack(t,
		file(".wh.file", ""), file(".wh.folder", ""), file("opaque/.wh..wh..opq", ""), file("opaque/new", "above"),
		// The same layer hides a name and has it: whichever comes first, only what is below is hidden.
		file(".wh.remade", ""), dir("remade", 0o755), file("remade/new", "above"),
		dir("remade-late", 0o755), file("remade-late/new", "above"), file(".wh.remade-late", ""),
		file("both", "above"), file(".wh.both", ""),
		file("deep/a/.wh.b", ""), dir(".wh..wh.plnk", 0o700), file(".wh..wh.aufs", ""),
	)
	seen := stack(t, below, above)
	var got []string
	err := filepath.WalkDir(seen, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			got = append(got, path[len(seen)+1:]+": "+read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"both: above", "kept: below", "opaque/new: above", "remade/new: above", "remade-late/new: above"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(seen, "deep/a")); err != nil {
		t.Error(err)
	}
}
