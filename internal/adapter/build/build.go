// Package build is the family of things that turn a folder of source into a container image.
//
// A Builder needs no container engine: it writes OCI layers itself. The same source, tools and
// platform give the same digest, so an unchanged folder is never pushed or rolled out again.
// Implementations live in folders of their own and all pass buildtest.Run.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Errors a Builder answers with; callers use errors.Is.
var (
	// ErrNotMine means the folder is not written in what this builder builds.
	ErrNotMine = errors.New("not this builder's kind of source")
	// ErrSource means the folder is, but something in it must change first.
	ErrSource = errors.New("source cannot be built")
	// ErrNoToolchain means the compiler is not installed.
	ErrNoToolchain = errors.New("toolchain not found")
)

// A Builder makes images of one kind of source. It is safe for concurrent use.
type Builder interface {
	// Name is the language or kind, in lower case, as users say it.
	Name() string
	// Detect answers nil when it can build the folder, ErrNotMine when the folder holds none of its
	// sources, and another error, for the user to read, when it holds some and something is amiss.
	Detect(dir string) error
	// Build makes the image. Broken source is a *CompileError or an ErrSource.
	Build(ctx context.Context, r Request) (Result, error)
}

// Request asks for one build.
type Request struct {
	// Dir is the folder with the source.
	Dir string
	// Name names the program in the image; "" takes the folder's name.
	Name string
	// Platforms are what to build for; none means this machine's.
	Platforms []v1.Platform
	// Progress gets what the tools print while they work, nil for nobody.
	Progress io.Writer
}

// Result is what a build made: an image, and an index where several platforms were asked for.
type Result struct {
	Image v1.Image      // of the first platform
	Index v1.ImageIndex // nil for one platform
}

// Taggable is what to push.
func (r Result) Taggable() remote.Taggable {
	if r.Index != nil {
		return r.Index
	}
	return r.Image
}

// Digest is of the index where there is one, else of the image.
func (r Result) Digest() (v1.Hash, error) {
	if r.Index != nil {
		return r.Index.Digest()
	}
	return r.Image.Digest()
}

// CompileError is broken source, as the compiler sees it. It is an ErrSource.
type CompileError struct {
	Problems []Problem // where the compiler named a place
	Output   string    // all it printed
}

// Problem is one complaint of a compiler.
type Problem struct {
	File    string // relative to the source folder
	Line    int
	Column  int // 0 when not known
	Message string
}

// String writes the problem as compilers do: file:line:column: message.
func (p Problem) String() string {
	if p.Column == 0 {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Error lists the problems, or all output when no place was named.
func (e *CompileError) Error() string {
	if len(e.Problems) == 0 {
		return "compiling:\n" + strings.TrimSpace(e.Output)
	}
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return "compiling:\n" + strings.Join(lines, "\n")
}

// Is makes every CompileError an ErrSource.
func (e *CompileError) Is(target error) bool { return target == ErrSource }
