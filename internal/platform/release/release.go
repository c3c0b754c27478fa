// Package release knows which Kubernetes release is linked in, and has the libraries tell it.
package release

import (
	"strings"
	"sync"
	"sync/atomic"
	_ "unsafe" // for linkname

	_ "k8s.io/component-base/version" // has what is linked to
)

// Kubernetes is the release linked in; a test keeps it equal to go.mod's.
const Kubernetes = "v1.36.4"

// What Kubernetes' libraries say about themselves. Only the linker sets it, with
//
//	-X k8s.io/component-base/version.gitVersion=v1.36.4
//
// and a binary built without that would call itself v0.0.0-master, which clients that need a least
// version refuse and kubectl cannot even parse. There is no function that sets it from there.
//
//go:linkname dynamicGitVersion k8s.io/component-base/version.dynamicGitVersion
var dynamicGitVersion atomic.Value

//go:linkname gitMajor k8s.io/component-base/version.gitMajor
var gitMajor string

//go:linkname gitMinor k8s.io/component-base/version.gitMinor
var gitMinor string

//go:linkname gitCommit k8s.io/component-base/version.gitCommit
var gitCommit string

var once sync.Once

// Stamp makes the libraries tell the real release, unless the linker did. Call it before they are
// asked, which happens when parts of Kubernetes start.
func Stamp() {
	once.Do(func() {
		if told, _ := dynamicGitVersion.Load().(string); !strings.HasPrefix(told, "v0.0.0") {
			return
		}
		parts := strings.Split(strings.TrimPrefix(Kubernetes, "v"), ".")
		gitMajor, gitMinor = parts[0], parts[1]
		gitCommit = "" // it holds a placeholder
		dynamicGitVersion.Store(Kubernetes)
	})
}
