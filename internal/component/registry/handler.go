package registry

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var (
	namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

const maxNameLength = 255

// operation is one thing of the API: a repository, and for most a target (digest, tag or session).
type operation func(w http.ResponseWriter, req *http.Request, repo, target string) error

// Handler serves the distribution API (version 2) and POST /collect.
//
// It takes no credentials, so it is for a loopback listener: requests for a foreign host name and
// cross-origin requests of browsers are refused, so that no web page can reach it.
func (r *Registry) Handler() http.Handler {
	inner := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := r.route(w, req); err != nil {
			r.fail(w, req, err)
		}
	})
	return http.NewCrossOriginProtection().Handler(inner)
}

func (r *Registry) route(w http.ResponseWriter, req *http.Request) error {
	if !localHost(req.Host) {
		return errForeign
	}
	if req.URL.Path == "/collect" {
		return r.serveCollect(w, req)
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case !ok && req.URL.Path != "/v2":
		return refuse(http.StatusNotFound, "UNSUPPORTED", "this is an image registry; its API begins at /v2/")
	case path == "":
		return ping(w, req)
	case path == "_catalog":
		return r.catalog(w, req)
	}
	return r.routeRepository(w, req, path)
}

// routeRepository takes the path apart from its end, since names have slashes too.
func (r *Registry) routeRepository(w http.ResponseWriter, req *http.Request, path string) error {
	repo, kind, target := splitPath(path)
	if len(repo) > maxNameLength || !namePattern.MatchString(repo) {
		return errNameInvalid
	}
	table := map[string]map[string]operation{
		"manifests": {http.MethodGet: r.getManifest, http.MethodHead: r.getManifest, http.MethodPut: r.putManifest, http.MethodDelete: r.deleteManifest},
		"blobs":     {http.MethodGet: r.getBlob, http.MethodHead: r.getBlob, http.MethodDelete: r.deleteBlob},
		"uploads":   {http.MethodPost: r.beginUpload, http.MethodGet: r.uploadStatus, http.MethodPatch: r.patchUpload, http.MethodPut: r.finishUpload, http.MethodDelete: r.cancelUpload},
		"tags":      {http.MethodGet: r.listTags},
		"referrers": {http.MethodGet: r.listReferrers},
	}
	methods, ok := table[kind]
	if !ok {
		return refuse(http.StatusNotFound, "UNSUPPORTED", "no such resource")
	}
	serve, ok := methods[req.Method]
	if !ok {
		return errMethod
	}
	return serve(w, req, repo, target)
}

// splitPath finds "<repo>/<kind>/<target>"; uploads are "<repo>/blobs/uploads/<target>".
func splitPath(path string) (repo, kind, target string) {
	path, target = cutLast(path)
	path, kind = cutLast(path)
	if kind == "uploads" {
		if repo, blobs := cutLast(path); blobs == "blobs" {
			return repo, kind, target
		}
	}
	if kind == "blobs" && target == "uploads" { // POST without the final slash
		return path, "uploads", ""
	}
	return path, kind, target
}

func cutLast(path string) (before, after string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func ping(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return errMethod
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "2")
	_, err := w.Write([]byte("{}"))
	return err
}

// localHost says whether a Host header is one this machine's own clients send. An address is fine:
// what is kept out are names that somebody else's DNS can point here.
func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func parseDigest(text string) (v1.Hash, error) {
	h, err := v1.NewHash(text)
	if err != nil || h.Algorithm != "sha256" {
		return v1.Hash{}, errDigestInvalid
	}
	return h, nil
}
