package gosource

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// epoch is the time of every file, so that the same files make the same layer.
var epoch = time.Unix(0, 0).UTC()

// certificates are where distributions keep the certificates that Go programs trust.
var certificates = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

const (
	userID = 65532
	//nolint:gosec // no password in it: "x" and no shell
	passwd = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
	group  = "root:x:0:\nnobody:x:65534:\ntty:x:5:\nnonroot:x:65532:\n"
)

// archive writes a layer: tar, compressed, both digests taken on the way.
type archive struct {
	packed bytes.Buffer
	zip    *gzip.Writer
	plain  hash.Hash
	tar    *tar.Writer
}

func newArchive() (*archive, error) {
	a := &archive{plain: sha256.New()}
	var err error
	// Most layers travel over loopback once and are unpacked at once: fast beats small.
	if a.zip, err = gzip.NewWriterLevel(&a.packed, gzip.BestSpeed); err != nil {
		return nil, err
	}
	a.tar = tar.NewWriter(io.MultiWriter(a.zip, a.plain))
	return a, nil
}

func (a *archive) folder(name string, mode int64, owner int) error {
	return a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner, ModTime: epoch, Format: tar.FormatPAX,
	})
}

func (a *archive) file(name string, mode, size int64, content io.Reader) error {
	err := a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: epoch, Format: tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(a.tar, content)
	return err
}

func (a *archive) text(name, content string) error {
	return a.file(name, 0o644, int64(len(content)), bytes.NewReader([]byte(content)))
}

func (a *archive) layer() (v1.Layer, error) {
	if err := errors.Join(a.tar.Close(), a.zip.Close()); err != nil {
		return nil, err
	}
	packed := sha256.Sum256(a.packed.Bytes())
	return &layer{
		packed: a.packed.Bytes(),
		digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(packed[:])},
		diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(a.plain.Sum(nil))},
	}, nil
}

// layer is a compressed layer in memory.
type layer struct {
	packed         []byte
	digest, diffID v1.Hash
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) Size() (int64, error)                { return int64(len(l.packed)), nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.packed)), nil
}

func (l *layer) Uncompressed() (io.ReadCloser, error) {
	return gzip.NewReader(bytes.NewReader(l.packed))
}

// baseLayers are what every image begins with: users and a place for temporary files, and the
// certificates of this machine in a layer of their own, where it has some.
func baseLayers() ([]v1.Layer, error) {
	a, err := newArchive()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		a.folder("etc", 0o755, 0), a.text("etc/group", group), a.text("etc/passwd", passwd),
		a.folder("home", 0o755, 0), a.folder("home/nonroot", 0o700, userID),
		a.folder("root", 0o700, 0), a.folder("tmp", 0o1777, 0),
	)
	if err != nil {
		return nil, fmt.Errorf("writing base layer: %w", err)
	}
	base, err := a.layer()
	if err != nil {
		return nil, fmt.Errorf("writing base layer: %w", err)
	}
	trust, err := certificateLayer()
	if err != nil {
		return nil, fmt.Errorf("writing certificates: %w", err)
	}
	if trust == nil {
		return []v1.Layer{base}, nil
	}
	return []v1.Layer{base, trust}, nil
}

func certificateLayer() (v1.Layer, error) {
	for _, path := range certificates {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		a, err := newArchive()
		if err != nil {
			return nil, err
		}
		err = errors.Join(
			a.folder("etc", 0o755, 0), a.folder("etc/ssl", 0o755, 0), a.folder("etc/ssl/certs", 0o755, 0),
			a.text("etc/ssl/certs/ca-certificates.crt", string(content)),
		)
		if err != nil {
			return nil, err
		}
		return a.layer()
	}
	return nil, nil //nolint:nilnil // a machine without certificates is fine: the image has none either
}

// programLayer holds the program alone, so that it is all that changes from build to build.
func programLayer(program, name string) (v1.Layer, error) {
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	a, err := newArchive()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.folder("app", 0o755, 0), a.file("app/"+name, 0o555, info.Size(), f)); err != nil {
		return nil, err
	}
	return a.layer()
}
