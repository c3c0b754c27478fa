package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// together is how many endpoints are asked at once.
const together = 5

// aggregate asks each ready endpoint of the Service that the URL names. Those that fail count for
// nothing, unless all do.
func (s *source) aggregate(ctx context.Context) (float64, error) {
	addresses, err := s.endpoints()
	if err != nil {
		return 0, fmt.Errorf("getting kubernetes endpoints urls from configured service URL: %w", err)
	}
	if len(addresses) == 0 {
		return 0, errors.New("no endpoints URLs were given for the service name")
	}
	values, err := s.askAll(ctx, addresses)
	if len(values) == 0 {
		return 0, fmt.Errorf("could not get any metric successfully from the %d provided endpoints: %w", len(addresses), err)
	}
	switch s.parameters.Aggregation {
	case "min":
		return slices.Min(values), nil
	case "max":
		return slices.Max(values), nil
	}
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	if s.parameters.Aggregation == "average" {
		return sum / float64(len(values)), nil
	}
	return sum, nil
}

// askAll returns the numbers of the addresses that answer, and an error of one that does not.
func (s *source) askAll(ctx context.Context, addresses []string) (values []float64, failure error) {
	var (
		asking sync.WaitGroup
		mu     sync.Mutex // guards values and failure
		slots  = make(chan struct{}, together)
	)
	for _, address := range addresses {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			value, err := s.ask(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
				return
			}
			values = append(values, value)
		})
	}
	asking.Wait()
	return values, failure
}

// endpoints returns the URL once for each address behind the Service that its host names, as
// service.namespace and whatever follows. A port that no endpoint has is left to the scheme.
func (s *source) endpoints() ([]string, error) {
	u, err := url.Parse(s.parameters.URL)
	if err != nil {
		return nil, errors.New("it is not a valid URL")
	}
	parts := strings.Split(u.Hostname(), ".")
	if len(parts) < 2 {
		return nil, fmt.Errorf("invalid hostname %s : expected at least 2 elements, first being service name and second being the namespace", u.Host)
	}
	endpoints, err := s.objects.EndpointSlices(parts[1], parts[0])
	if err != nil {
		return nil, err
	}
	seen, out := map[string]bool{}, []string{}
	for _, slice := range endpoints {
		port := portOf(slice, u)
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, address := range e.Addresses {
				if seen[address] {
					continue
				}
				seen[address] = true
				out = append(out, (&url.URL{Scheme: u.Scheme, Host: host(address, port), Path: u.Path, RawPath: u.RawPath}).String())
			}
		}
	}
	return out, nil
}

// portOf returns the port that the URL says or implies if the slice has it.
func portOf(slice *discoveryv1.EndpointSlice, u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	for _, p := range slice.Ports {
		if p.Port != nil && strconv.Itoa(int(*p.Port)) == port {
			return port
		}
	}
	return ""
}

func host(address, port string) string {
	if port != "" {
		return net.JoinHostPort(address, port)
	}
	if strings.Contains(address, ":") {
		return "[" + address + "]"
	}
	return address
}
