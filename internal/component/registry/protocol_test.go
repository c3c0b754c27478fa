package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestRefusals(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir(), MaxBlobBytes: 1024, MaxManifestBytes: 512, MaxUploads: 2})
	index := func(extra string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]` + extra + `}`
	}
	ociIndex := http.Header{"Content-Type": {string(types.OCIImageIndex)}}
	cases := map[string]struct {
		method, path, body string
		header             http.Header
		status             int
		code               string
	}{
		"not the API":                 {"GET", "/", "", nil, 404, "UNSUPPORTED"},
		"no such resource":            {"GET", "/v2/app/things/x", "", nil, 404, "UNSUPPORTED"},
		"no such method":              {"POST", "/v2/app/manifests/v1", "", nil, 405, "UNSUPPORTED"},
		"unknown repository":          {"GET", "/v2/app/manifests/v1", "", nil, 404, "MANIFEST_UNKNOWN"},
		"tags of unknown repository":  {"GET", "/v2/app/tags/list", "", nil, 404, "NAME_UNKNOWN"},
		"unknown blob":                {"GET", "/v2/app/blobs/" + someDigest, "", nil, 404, "BLOB_UNKNOWN"},
		"digest of another kind":      {"GET", "/v2/app/blobs/md5:1234", "", nil, 400, "DIGEST_INVALID"},
		"climbing name":               {"GET", "/v2/..%2f..%2fetc/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"name with upper case":        {"GET", "/v2/App/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"name with our folder":        {"GET", "/v2/app/_tags/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"long name":                   {"GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"climbing tag":                {"PUT", "/v2/app/manifests/..%2f..%2fx", index(""), ociIndex, 400, "NAME_INVALID"},
		"bad tag":                     {"PUT", "/v2/app/manifests/.hidden", index(""), ociIndex, 400, "TAG_INVALID"},
		"manifest that is not JSON":   {"PUT", "/v2/app/manifests/v1", "hello", ociIndex, 400, "MANIFEST_INVALID"},
		"manifest of version 1":       {"PUT", "/v2/app/manifests/v1", `{"schemaVersion":1}`, nil, 400, "MANIFEST_INVALID"},
		"manifest under wrong type":   {"PUT", "/v2/app/manifests/v1", index(""), http.Header{"Content-Type": {string(types.DockerManifestList)}}, 400, "MANIFEST_INVALID"},
		"manifest under wrong digest": {"PUT", "/v2/app/manifests/" + someDigest, index(""), ociIndex, 400, "DIGEST_INVALID"},
		"manifest too large":          {"PUT", "/v2/app/manifests/v1", index(`,"annotations":{"a":"` + strings.Repeat("x", 512) + `"}`), ociIndex, 413, "SIZE_INVALID"},
		"manifest without its blob": {
			"PUT", "/v2/app/manifests/v1", `{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":0}}`, nil, 404, "MANIFEST_BLOB_UNKNOWN",
		},
		"blob under wrong digest": {"POST", "/v2/app/blobs/uploads/?digest=" + someDigest, "hello", nil, 400, "DIGEST_INVALID"},
		"blob too large":          {"POST", "/v2/app/blobs/uploads/?digest=" + someDigest, strings.Repeat("x", 1025), nil, 413, "SIZE_INVALID"},
		"unknown upload":          {"PATCH", "/v2/app/blobs/uploads/" + strings.Repeat("ab", 16), "hello", nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		"upload that is a path":   {"PATCH", "/v2/app/blobs/uploads/..%2f..%2fx", "hello", nil, 400, "NAME_INVALID"},
		"number that is none":     {"GET", "/v2/_catalog?n=many", "", nil, 400, "PAGINATION_NUMBER_INVALID"},
		"name of somebody's DNS":  {"GET", "/v2/", "", http.Header{"Host": {"registry.example.com"}}, 403, "DENIED"},
		"collect by GET":          {"GET", "/collect", "", nil, 405, "UNSUPPORTED"},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			status, _, body := do(t, c.method, addr+c.path, c.body, c.header)
			if status != c.status || errorCode(body) != c.code {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.code)
			}
		})
	}
}

func TestWebPagesAreRefused(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	for _, path := range []string{"/v2/app/blobs/uploads/", "/collect"} {
		status, _, _ := do(t, http.MethodPost, addr+path, "", http.Header{"Origin": {"https://example.com"}})
		if status != http.StatusForbidden {
			t.Errorf("POST %s from a web page: %d", path, status)
		}
	}
}

func TestChunkedUpload(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	location := beginUpload(t, addr, "app")
	step := func(method, path, body, contentRange string, want int, wantRange string) {
		t.Helper()
		header := http.Header{}
		if contentRange != "" {
			header.Set("Content-Range", contentRange)
		}
		code, got, answer := do(t, method, addr+path, body, header)
		if code != want || wantRange != "" && got.Get("Range") != wantRange {
			t.Fatalf("%s %q: %d, range %q, %s; want %d, %q", method, body, code, got.Get("Range"), answer, want, wantRange)
		}
	}
	step(http.MethodPatch, location, "abc", "0-2", 202, "0-2")
	step(http.MethodPatch, location, "xyz", "7-9", 416, "0-2")
	step(http.MethodGet, location, "", "", 204, "0-2")
	step(http.MethodPatch, location, "def", "3-5", 202, "0-5")
	whole := hashOf([]byte("abcdefgh")).String()
	step(http.MethodPut, location+"?digest="+whole, "gh", "6-7", 201, "")
	step(http.MethodGet, location, "", "", 404, "")

	code, header, body := do(t, http.MethodGet, addr+"/v2/app/blobs/"+whole, "", http.Header{"Range": {"bytes=2-4"}})
	if code != http.StatusPartialContent || body != "cde" || header.Get("Content-Range") != "bytes 2-4/8" {
		t.Errorf("range: %d %q %v", code, body, header)
	}
	code, header, _ = do(t, http.MethodPost, addr+"/v2/other/blobs/uploads/?mount="+whole+"&from=app", "", nil)
	if code != http.StatusCreated || header.Get("Docker-Content-Digest") != whole {
		t.Errorf("mount: %d %v", code, header)
	}
	code, header, _ = do(t, http.MethodPost, addr+"/v2/other/blobs/uploads/?mount="+someDigest+"&from=app", "", nil)
	if code != http.StatusAccepted || header.Get("Location") == "" {
		t.Errorf("mount of a blob that is not there: %d %v", code, header)
	}
	location = beginUpload(t, addr, "app")
	step(http.MethodDelete, location, "", "", 204, "")
	step(http.MethodGet, location, "", "", 404, "")
}

func TestUploadsAreBounded(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir(), MaxUploads: 2})
	first := beginUpload(t, addr, "app")
	beginUpload(t, addr, "app")
	if code, _, body := do(t, http.MethodPost, addr+"/v2/app/blobs/uploads/", "", nil); code != http.StatusTooManyRequests {
		t.Errorf("third upload: %d %s", code, body)
	}
	do(t, http.MethodDelete, addr+first, "", nil)
	beginUpload(t, addr, "app")
}

func TestListsComeInPages(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	for i := range 5 {
		code, _, body := do(t, http.MethodPut, addr+fmt.Sprintf("/v2/app/manifests/v%d", i), `{"schemaVersion":2,"manifests":[]}`, nil)
		if code != http.StatusCreated {
			t.Fatal(code, body)
		}
	}
	var seen []string
	next := "/v2/app/tags/list?n=2"
	for next != "" {
		code, header, body := do(t, http.MethodGet, addr+next, "", nil)
		if code != http.StatusOK {
			t.Fatal(code, body)
		}
		seen = append(seen, body)
		next, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	want := []string{`{"name":"app","tags":["v0","v1"]}`, `{"name":"app","tags":["v2","v3"]}`, `{"name":"app","tags":["v4"]}`}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestReferrersListWhatPointsAtAnImage(t *testing.T) {
	r, addr := serve(t, Config{Dir: t.TempDir()})
	img := randomImage(t)
	push(t, img, addr+"/app:v1")
	subject := digestOf(t, img)
	for kind := range map[string]bool{"application/sbom": true, "application/signature": true} {
		manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"manifests":[],"subject":{"mediaType":"x/y","size":1,"digest":%q}}`,
			types.OCIImageIndex, kind, subject)
		code, header, body := do(t, http.MethodPut, addr+"/v2/app/manifests/"+hashOf([]byte(manifest)).String(), manifest, nil)
		if code != http.StatusCreated || header.Get("Oci-Subject") != subject {
			t.Fatal(code, header, body)
		}
	}
	for query, want := range map[string]int{"": 2, "?artifactType=application/sbom": 1, "?artifactType=none": 0} {
		code, header, body := do(t, http.MethodGet, addr+"/v2/app/referrers/"+subject+query, "", nil)
		index, err := v1.ParseIndexManifest(strings.NewReader(body))
		if code != http.StatusOK || err != nil || len(index.Manifests) != want {
			t.Errorf("referrers%s: %d %s (%v), want %d", query, code, body, err, want)
		}
		if (query != "") != (header.Get("Oci-Filters-Applied") != "") {
			t.Errorf("referrers%s: filters applied %q", query, header.Get("Oci-Filters-Applied"))
		}
	}
	// They live as long as their subject has a tag.
	if out, err := r.Collect(t.Context(), Collection{Untagged: true}); err != nil || out.Manifests != 0 {
		t.Errorf("collected %+v, %v", out, err)
	}
	do(t, http.MethodDelete, addr+"/v2/app/manifests/v1", "", nil)
	if out, err := r.Collect(t.Context(), Collection{Untagged: true}); err != nil || out.Manifests != 3 {
		t.Errorf("collected %+v, %v", out, err)
	}
}

func TestBlobsInUseStay(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	img := randomImage(t)
	push(t, img, addr+"/app:v1")
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/app/blobs/" + config.String()
	if code, _, body := do(t, http.MethodDelete, addr+path, "", nil); code != http.StatusForbidden {
		t.Errorf("deleting a blob in use: %d %s", code, body)
	}
	do(t, http.MethodDelete, addr+"/v2/app/manifests/"+digestOf(t, img), "", nil)
	if code, _, body := do(t, http.MethodDelete, addr+path, "", nil); code != http.StatusAccepted {
		t.Errorf("deleting a blob nobody needs: %d %s", code, body)
	}
}
