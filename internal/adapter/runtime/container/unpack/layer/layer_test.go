package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// e is a short way to write an entry.
type e struct {
	tar.Header

	content string
}

func dir(name string, mode int64) e {
	return e{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func file(name, content string) e {
	return e{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content: content}
}

func symlink(name, to string) e {
	return e{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}}
}

func link(name, to string) e {
	return e{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}

func pack(t *testing.T, entries ...e) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, entry := range entries {
		h := entry.Header
		h.Size = int64(len(entry.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(entry.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func hashOf(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// unpack writes an archive into a new folder. Changing owners and making whiteouts takes root.
func unpack(t *testing.T, archive []byte) (string, Report, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers takes root")
	}
	root := filepath.Join(t.TempDir(), "fs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	report, err := Write(t.Context(), root, bytes.NewReader(archive), hashOf(archive), Limits{})
	return root, report, err
}

func mustUnpack(t *testing.T, entries ...e) string {
	t.Helper()
	root, _, err := unpack(t, pack(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func stat(t *testing.T, parts ...string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(parts...), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func xattr(path, name string) string {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

func TestEverythingArrives(t *testing.T) {
	then := time.Date(2020, 2, 3, 4, 5, 6, 7000, time.UTC)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	records := map[string]string{
		"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "kept",
		"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
	}
	owned := func(entry e, uid, gid int) e {
		entry.Uid, entry.Gid, entry.ModTime, entry.Format = uid, gid, then, tar.FormatPAX
		return entry
	}
	suid := owned(file("bin/su", "#!"), 0, 42)
	suid.Mode, suid.PAXRecords = 0o4755, records
	device := e{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/mem", Devmajor: 1, Devminor: 1}}
	pipe := owned(e{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o620}}, 7, 8)
	archive := pack(t,
		owned(dir("./", 0o751), 0, 0), owned(dir("tmp/", 0o1777), 0, 0), owned(dir("bin/", 0o755), 0, 0), suid,
		owned(symlink("bin/sh", "/bin/su"), 3, 4), link("bin/sudo", "bin/su"), pipe, device,
		owned(file("tmp/locked/deep/file", "x"), 65532, 65532), owned(dir("tmp/locked", 0), 9, 9),
	)
	root, report, err := unpack(t, archive)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Report{Bytes: 3, Entries: 10, Devices: 1}, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
		links    int
	}{
		".": {unix.S_IFDIR | 0o751, 0, 0, 0}, "tmp": {unix.S_IFDIR | 0o1777, 0, 0, 0}, "bin/su": {unix.S_IFREG | 0o4755, 0, 42, 2},
		"bin/sh": {unix.S_IFLNK | 0o777, 3, 4, 1}, "run/pipe": {unix.S_IFIFO | 0o620, 7, 8, 1},
		"tmp/locked": {unix.S_IFDIR, 9, 9, 0}, "tmp/locked/deep/file": {unix.S_IFREG | 0o644, 65532, 65532, 1},
	} {
		st := stat(t, root, name)
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || want.links != 0 && int(st.Nlink) != want.links {
			t.Errorf("%s: mode %o, owner %d:%d, %d links; want %+v", name, st.Mode, st.Uid, st.Gid, st.Nlink, want)
		}
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(then) {
			t.Errorf("%s is of %v, want %v", name, got, then)
		}
	}
	if stat(t, root, "bin/su").Ino != stat(t, root, "bin/sudo").Ino {
		t.Error("the second name is another file")
	}
	su := filepath.Join(root, "bin/su")
	if xattr(su, "security.capability") != capability || xattr(su, "user.note") != "kept" {
		t.Error("attributes of the image are missing")
	}
	if xattr(su, "trusted.overlay.redirect") != "" || xattr(su, "user.overlay.opaque") != "" {
		t.Error("attributes that are not the image's to set are there")
	}
	if _, err := os.Lstat(filepath.Join(root, "dev/mem")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a device node was made")
	}
}

func TestLaterEntriesReplaceEarlierOnes(t *testing.T) {
	root := mustUnpack(t,
		file("a", "file first"), dir("a/", 0o755), file("a/in", "x"),
		dir("b/", 0o755), file("b/in/deep", "x"), file("b", "file last"),
		symlink("c", "/nowhere"), file("c", "not followed"),
		file("d", "old"), link("d2", "d"), file("d", "new"),
		dir("e/sub", 0o755), symlink("e/sub", "/a"), file("e/sub/through", "y"),
	)
	for name, want := range map[string]string{
		"a/in": "x", "b": "file last", "c": "not followed", "d": "new", "d2": "old", "a/through": "y",
	} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if stat(t, root, "e/sub").Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Error("e/sub is no link")
	}
}

func TestLinksAreFollowedInsideOnly(t *testing.T) {
	root := mustUnpack(t,
		dir("run", 0o755), dir("etc", 0o755), symlink("var/run", "/run"), file("var/run/pid", "1"),
		symlink("up", "../../../../../.."), file("up/etc/passwd", "inside"),
		symlink("loop/host", "/proc/self/root"), dir("proc/self", 0o755), symlink("proc/self/root", "/etc"), file("loop/host/shadow", "inside"),
	)
	for name, want := range map[string]string{"run/pid": "1", "etc/passwd": "inside", "etc/shadow": "inside"} {
		if got := read(t, root, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	hostile := map[string][]e{
		"climbing name":                {file("../evil", "x")},
		"climbing in the middle":       {file("a/../../evil", "x")},
		"climbing link target":         {link("passwd", "../../etc/passwd")},
		"root that is a file":          {file(".", "x")},
		"whiteout of the folder":       {file("a/.wh..", "")},
		"whiteout of the folder above": {file("a/.wh...", "")},
		"whiteout of nothing":          {file("a/.wh.", "")},
	}
	for what, entries := range hostile {
		t.Run(what, func(t *testing.T) {
			if _, _, err := unpack(t, pack(t, entries...)); !errors.Is(err, ErrHostile) {
				t.Errorf("got %v, want %v", err, ErrHostile)
			}
		})
	}
	broken := map[string][]e{
		"link to a file outside, absolute":          {link("got", victim)},
		"link to a file outside by a symbolic link": {symlink("out", outside), link("got", "out/victim")},
		"a file where a folder must be":             {file("a", "x"), file("a/b", "x")},
		"links in a circle":                         {symlink("a", "b"), symlink("b", "a"), file("a/x", "x")},
	}
	for what, entries := range broken {
		t.Run(what, func(t *testing.T) {
			if _, _, err := unpack(t, pack(t, entries...)); err == nil {
				t.Error("it was accepted")
			}
		})
	}
	// A link to a folder that only the host has leads to a new one inside.
	root := mustUnpack(t, symlink("out", outside), file("out/victim", "inside"))
	if got := read(t, root, outside, "victim"); got != "inside" {
		t.Errorf("the file inside is %q", got)
	}
	// A symbolic link may point anywhere, and a later file of its name replaces it.
	mustUnpack(t, symlink("own", victim), file("own", "x"))
	if got := read(t, victim); got != "untouched" {
		t.Errorf("the file outside is %q now", got)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder outside has %v now (%v)", entries, err)
	}
}

func TestCostIsBounded(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers takes root")
	}
	zeros := pack(t, file("zeros", strings.Repeat("\x00", 8<<20)))
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	if _, err := w.Write(zeros); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var tail bytes.Buffer
	w = gzip.NewWriter(&tail)
	if _, err := w.Write(append(pack(t, file("a", "x")), make([]byte, 8<<20)...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	many := make([]e, 100)
	for i := range many {
		many[i] = file("same", "")
	}
	for what, c := range map[string]struct {
		archive []byte
		limits  Limits
	}{
		"bytes":                 {zeros, Limits{Bytes: 1 << 20}},
		"bytes, compressed":     {bomb.Bytes(), Limits{Bytes: 1 << 20}},
		"bytes after the end":   {tail.Bytes(), Limits{Bytes: 1 << 20}},
		"entries":               {pack(t, many...), Limits{Entries: 99}},
		"a size it only claims": {pack(t, file("huge", "x"))[:1024], Limits{Bytes: 1}},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			_, err := Write(t.Context(), root, bytes.NewReader(c.archive), hashOf(c.archive), c.limits)
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v, want %v", err, ErrTooLarge)
			}
			if info, err := os.Stat(filepath.Join(root, "zeros")); err == nil && info.Size() > 2<<20 {
				t.Errorf("%d bytes were written", info.Size())
			}
		})
	}
}

func TestCompressions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers takes root")
	}
	plain := pack(t, file("hello", strings.Repeat("world ", 1000)))
	var zipped, twice, zst bytes.Buffer
	for i, half := range [][]byte{plain[:700], plain[700:]} {
		w := gzip.NewWriter(&twice)
		_, _ = w.Write(half)
		_ = w.Close()
		if i == 0 {
			w = gzip.NewWriter(&zipped)
			_, _ = w.Write(plain)
			_ = w.Close()
		}
	}
	enc, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = enc.Write(plain)
	_ = enc.Close()
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, zst.Bytes()...)
	for what, c := range map[string]struct {
		archive []byte
		want    error
	}{
		"none": {plain, nil}, "gzip": {zipped.Bytes(), nil}, "gzip in two parts": {twice.Bytes(), nil}, "zstd": {zst.Bytes(), nil},
		"zstd after a skippable frame": {skippable, nil}, "xz": {[]byte("\xfd7zXZ\x00rest"), ErrFormat}, "bzip2": {[]byte("BZh91AY"), ErrFormat},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			source := bytes.NewReader(c.archive)
			_, err := Write(t.Context(), root, source, hashOf(plain), Limits{})
			if !errors.Is(err, c.want) {
				t.Fatal(err)
			}
			if err == nil && (len(read(t, root, "hello")) != 6000 || source.Len() != 0) {
				t.Error("not all of it was read")
			}
		})
	}
}

func TestDigestIsChecked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers takes root")
	}
	archive := pack(t, file("a", "x"))
	longer := append(bytes.Clone(archive), 0)
	for what, content := range map[string][]byte{"changed": pack(t, file("a", "y")), "longer": longer, "empty": {}} {
		if _, err := Write(t.Context(), t.TempDir(), bytes.NewReader(content), hashOf(archive), Limits{}); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: %v", what, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(gone, t.TempDir(), bytes.NewReader(archive), hashOf(archive), Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		outside := t.TempDir()
		root := filepath.Join(outside, "fs")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = Write(t.Context(), root, bytes.NewReader(archive), hashOf(archive), Limits{Bytes: 1 << 20, Entries: 100})
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Errorf("outside: %v, %v", entries, err)
		}
	})
}
