package h1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Bounds of what an instance may answer before its body.
const (
	maxHead    = 256 << 10
	maxFields  = 1000
	maxInterim = 32
)

// Response is the head of an answer; its header went where Receive was told.
type Response struct {
	Status int
	// Length of the body, -1 if it is not known.
	Length int64
	// Trailers the instance announced.
	Announced []string
	Body      *Body
}

// Interim receives a response before the real one, 103 Early Hints say. The header is not kept.
type Interim func(status int, header http.Header)

// Receive reads the response's head into header, which is empty. Its framing fields are taken out.
func (c *Conn) Receive(method string, header http.Header, interim Interim) (Response, error) {
	for range maxInterim {
		resp, err := c.receiveOne(method, header)
		if err != nil {
			c.keep = false
			return Response{}, err
		}
		if c.pump != nil {
			c.pump.unblock(resp.Status == http.StatusContinue)
		}
		if resp.Status >= 200 || resp.Status == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if resp.Status != http.StatusContinue && interim != nil {
			interim(resp.Status, header)
		}
		clear(header)
	}
	c.keep = false
	return Response{}, fmt.Errorf("%w: more than %d interim responses", ErrMalformed, maxInterim)
}

func (c *Conn) receiveOne(method string, header http.Header) (Response, error) {
	if err := c.readHead(); err != nil {
		return Response{}, err
	}
	status, rest, err := parseStatus(string(c.head))
	if err != nil {
		return Response{}, err
	}
	fields := strings.Count(rest, "\n")
	if fields > maxFields {
		return Response{}, fmt.Errorf("%w: %d header fields", ErrMalformed, fields)
	}
	if err := parseFields(rest, header, fields); err != nil {
		return Response{}, err
	}
	resp := Response{Status: status.code}
	return resp, c.frameBody(&resp, method, status.minor, header)
}

// readHead reads up to the empty line into the scratch buffer, folded lines made one.
func (c *Conn) readHead() error {
	c.head = c.head[:0]
	for {
		line, err := c.br.ReadSlice('\n')
		whole := err == nil
		if !whole && !errors.Is(err, bufio.ErrBufferFull) {
			return c.headCut(len(line), err)
		}
		if len(c.head)+len(line) > maxHead {
			return fmt.Errorf("%w: header above %d bytes", ErrMalformed, maxHead)
		}
		if len(c.head) > 0 && c.head[len(c.head)-1] == '\n' { // the line begins here
			if whole && len(bytes.TrimRight(line, "\r\n")) == 0 {
				return nil
			}
			if line[0] == ' ' || line[0] == '\t' {
				c.unfold()
			}
		}
		c.head = append(c.head, line...) // an empty first line is no status line
	}
}

// headCut tells what it means that the connection ended after some of the head.
func (c *Conn) headCut(partial int, err error) error {
	if len(c.head) > 0 || partial > 0 {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return c.lost(err)
}

// unfold replaces the end of the line before by spaces.
func (c *Conn) unfold() {
	for i := len(c.head) - 1; c.head[i] == '\n' || c.head[i] == '\r'; i-- {
		c.head[i] = ' '
	}
}

type status struct {
	code  int
	minor byte
}

// parseStatus splits off the status line.
func parseStatus(head string) (status, string, error) {
	line, rest, _ := strings.Cut(head, "\n")
	// HTTP/1.x SP 3DIGIT
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[8] != ' ' ||
		line[7] != '0' && line[7] != '1' || len(line) > 12 && line[12] != ' ' && line[12] != '\r' {
		return status{}, "", fmt.Errorf("%w: not a status line", ErrMalformed)
	}
	code, err := strconv.Atoi(line[9:12])
	if err != nil || code < 100 {
		return status{}, "", fmt.Errorf("%w: status is not a number", ErrMalformed)
	}
	return status{code: code, minor: line[7]}, rest, nil
}

// parseFields adds the header lines in s. Their values share one piece of memory.
func parseFields(s string, header http.Header, n int) error {
	values := make([]string, 0, n)
	for s != "" {
		line, rest, _ := strings.Cut(s, "\n")
		s = rest
		line = strings.TrimSuffix(line, "\r")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("%w: header field without a valid name", ErrMalformed)
		}
		value = textproto.TrimString(value)
		if !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("%w: value of header field %s", ErrMalformed, name)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if had := header[name]; had != nil {
			header[name] = append(had, value)
			continue
		}
		values = append(values, value)
		i := len(values) - 1
		header[name] = values[i : i+1 : i+1]
	}
	return nil
}

// frameBody decides by RFC 9112 §6.3 how long the body is, and takes hop-by-hop fields out.
func (c *Conn) frameBody(resp *Response, method string, minor byte, header http.Header) error {
	chunked, err := transferEncoding(header)
	if err != nil {
		return err
	}
	length, err := contentLength(header)
	if err != nil {
		return err
	}
	if chunked && length >= 0 {
		delete(header, "Content-Length") // RFC 9112 §6.3: the one that could be smuggled is dropped
		length = -1
		c.keep = false
	}
	connection := header["Connection"]
	c.keep = c.keep && keepAlive(connection, minor)
	dropHop(header, connection, resp.Status)
	if t := header["Trailer"]; t != nil {
		resp.Announced = announced(t)
	}
	resp.Body = &c.body
	resp.Length = length
	switch {
	case method == http.MethodHead || resp.Status < 200 || resp.Status == http.StatusNoContent ||
		resp.Status == http.StatusNotModified:
		c.body = Body{c: c, kind: sized}
		resp.Length = 0
	case chunked:
		c.body = Body{c: c, kind: chunks}
	case length >= 0:
		c.body = Body{c: c, kind: sized, left: length}
	default:
		c.body = Body{c: c, kind: endless}
		c.keep = false
	}
	return nil
}

// transferEncoding reports whether the body is chunked; no other coding is understood.
func transferEncoding(header http.Header) (bool, error) {
	te := header["Transfer-Encoding"]
	if te == nil {
		return false, nil
	}
	delete(header, "Transfer-Encoding")
	if len(te) != 1 || !strings.EqualFold(te[0], "chunked") {
		return false, fmt.Errorf("%w: transfer encoding %q", ErrMalformed, te)
	}
	return true, nil
}

// contentLength returns -1 if there is none; several must agree.
func contentLength(header http.Header) (int64, error) {
	values := header["Content-Length"]
	if values == nil {
		return -1, nil
	}
	first := values[0]
	for _, v := range values[1:] {
		if v != first {
			return 0, fmt.Errorf("%w: content lengths differ", ErrMalformed)
		}
	}
	for i := range len(first) {
		if first[i] < '0' || first[i] > '9' {
			return 0, fmt.Errorf("%w: content length %q", ErrMalformed, first)
		}
	}
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: content length %q", ErrMalformed, first)
	}
	if len(values) > 1 {
		header["Content-Length"] = values[:1]
	}
	return n, nil
}

func keepAlive(connection []string, minor byte) bool {
	if httpguts.HeaderValuesContainsToken(connection, "close") {
		return false
	}
	return minor == '1' || httpguts.HeaderValuesContainsToken(connection, "keep-alive")
}

// dropHop removes what concerns this connection only. An upgrade's own fields stay.
func dropHop(header http.Header, connection []string, status int) {
	for _, c := range connection {
		for name := range strings.SplitSeq(c, ",") {
			if name = textproto.TrimString(name); name != "" && !strings.EqualFold(name, "upgrade") {
				delete(header, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	delete(header, "Keep-Alive")
	delete(header, "Proxy-Connection")
	if status != http.StatusSwitchingProtocols {
		delete(header, "Connection")
		delete(header, "Upgrade")
	}
}

func announced(values []string) []string {
	var names []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				names = append(names, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	return names
}
