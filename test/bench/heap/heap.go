// Package heap tells what a process that runs a Kubernetes has allocated, and what of it is not Kubernetes'.
package heap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/client-go/rest"
)

// Sizes are what a process has allocated and still holds, MB.
type Sizes struct {
	All float64
	Own float64 // without what Kubernetes and etcd allocated
}

// kubernetes are the packages whose allocations are not ebb's own. What a shared library allocated
// on nobody's visible behalf (client-go's caches, say, which Kubernetes' controllers have, too) is
// counted, and what the bare Kubernetes has of it for the same objects is taken off.
var kubernetes = regexp.MustCompile(`\s(k8s\.io/(kubernetes|apiserver|apiextensions-apiserver|kube-aggregator|controller-manager)|go\.etcd\.io)/`)

// Of collects garbage in a process that runs the Kubernetes that config leads to, and reads its heap
// profile from the API server.
func Of(ctx context.Context, config *rest.Config) (Sizes, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return Sizes{}, err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/debug/pprof/heap?gc=1&debug=1", http.NoBody)
	if err != nil {
		return Sizes{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return Sizes{}, fmt.Errorf("reading the heap profile: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	return read(res.Body)
}

// A sample's first line is "objects: bytes [allocated objects: allocated bytes] @ addresses"; those of
// its stack follow. The profile's first line looks the same and ends in twice the sampling distance.
var (
	sampleLine = regexp.MustCompile(`^(\d+): (\d+) \[`)
	headLine   = regexp.MustCompile(`@ heap/(\d+)`)
)

// read adds up a profile in its text form.
func read(profile io.Reader) (Sizes, error) {
	lines := bufio.NewScanner(profile)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return Sizes{}, errors.Join(errors.New("reading the heap profile: it is empty"), lines.Err())
	}
	head := headLine.FindStringSubmatch(lines.Text())
	if head == nil {
		return Sizes{}, fmt.Errorf("reading the heap profile: it begins with %q", lines.Text())
	}
	twice, err := strconv.ParseFloat(head[1], 64)
	if err != nil {
		return Sizes{}, err
	}
	var h Sizes
	bytes, theirs := 0.0, false
	end := func() {
		h.All += bytes
		if !theirs {
			h.Own += bytes
		}
		bytes, theirs = 0, false
	}
	for lines.Scan() {
		line := lines.Text()
		if s := sampleLine.FindStringSubmatch(line); s != nil {
			end()
			if bytes, err = sampled(s[1], s[2], twice/2); err != nil {
				return Sizes{}, err
			}
			continue
		}
		if strings.HasPrefix(line, "# runtime.MemStats") {
			break
		}
		theirs = theirs || kubernetes.MatchString(line)
	}
	end()
	return h, lines.Err()
}

// sampled works out how many MB the objects caught stand for: small ones are caught less often.
func sampled(objects, bytes string, distance float64) (float64, error) {
	n, err := strconv.ParseFloat(objects, 64)
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseFloat(bytes, 64)
	if err != nil || n == 0 {
		return 0, err
	}
	return size / (1 - math.Exp(-size/n/distance)) / 1e6, nil
}
