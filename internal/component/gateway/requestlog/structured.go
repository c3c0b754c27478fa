package requestlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// entry is a line as JSON. httpRequest and traceId are what upstream's default template has, with
// strings where it has strings; the revision is new here, where one log has all of them.
type entry struct {
	Time     time.Time   `json:"time"`
	Request  httpRequest `json:"httpRequest"`
	Revision revision    `json:"revision"`
	TraceID  string      `json:"traceId"`
}

type httpRequest struct {
	Method       string `json:"requestMethod"`
	URL          string `json:"requestUrl"`
	Size         string `json:"requestSize"`
	Status       int    `json:"status"`
	ResponseSize string `json:"responseSize"`
	UserAgent    string `json:"userAgent"`
	RemoteIP     string `json:"remoteIp"`
	ServerIP     string `json:"serverIp"`
	Referer      string `json:"referer"`
	Latency      string `json:"latency"`
	Protocol     string `json:"protocol"`
	Host         string `json:"host"`
}

type revision struct {
	Namespace     string `json:"namespace"`
	Service       string `json:"service,omitempty"`
	Configuration string `json:"configuration"`
	Name          string `json:"name"`
	Pod           string `json:"pod,omitempty"`
}

func structured(in *Input) []byte {
	r, v := in.Request, in.Revision
	e := entry{
		Time: in.at.UTC(), TraceID: in.TraceID,
		Revision: revision{v.Namespace, v.Service, v.Configuration, v.Name, v.PodName},
		Request: httpRequest{
			Method: r.Method, URL: r.RequestURI, Size: strconv.FormatInt(r.ContentLength, 10), Status: in.Response.Code,
			ResponseSize: strconv.Itoa(in.Response.Size), UserAgent: r.UserAgent(), RemoteIP: r.RemoteAddr, ServerIP: v.PodIP,
			Referer: r.Referer(), Latency: strconv.FormatFloat(in.Response.Latency, 'f', -1, 64) + "s", Protocol: r.Proto, Host: r.Host,
		},
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if err := out.Encode(e); err != nil {
		return fmt.Appendf(nil, "%q", err) // strings and numbers can always be written
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// TraceID reads the trace a request belongs to: of the W3C header, else of B3's.
func TraceID(h http.Header) string {
	if parent := h.Get("Traceparent"); parent != "" {
		if parts := strings.SplitN(parent, "-", 3); len(parts) > 1 {
			return parts[1]
		}
	}
	return h.Get("X-B3-Traceid")
}
