package metricsapi

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// An element of an XML document.
type element struct {
	text      strings.Builder
	inner     map[string][]*element
	attribute map[string]string
}

// fromXML takes names of elements with dots between them, the root's first. An index chooses among
// those of the same name; an attribute's name may come last. Upstream, which promises such paths, has
// a decoder that fails on every document.
func fromXML(body []byte, location string) (float64, error) {
	document, err := readXML(body)
	if err != nil {
		return 0, err
	}
	at := []*element{document}
	keys := strings.Split(location, ".")
	for i, key := range keys {
		if n, err := strconv.Atoi(key); err == nil && n >= 0 && n < len(at) {
			at = at[n : n+1]
			continue
		}
		if len(at) != 1 {
			return 0, missing(key, location)
		}
		if value, ok := at[0].attribute[key]; ok && i == len(keys)-1 && at[0].inner[key] == nil {
			return quantity(strings.TrimSpace(value), location)
		}
		if at = at[0].inner[key]; at == nil {
			return 0, missing(key, location)
		}
	}
	if len(at) != 1 || len(at[0].inner) > 0 {
		return 0, fmt.Errorf("path '%s' does not lead to a value", location)
	}
	return quantity(strings.TrimSpace(at[0].text.String()), location)
}

// readXML returns an element whose only child is the document's root.
func readXML(body []byte) (*element, error) {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	open := []*element{{}}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			if len(open[0].inner) == 0 {
				return nil, errors.New("reading XML: there is no element")
			}
			return open[0], nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading XML: %w", err)
		}
		last := open[len(open)-1]
		switch t := token.(type) {
		case xml.StartElement:
			open = append(open, last.add(t))
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			last.text.Write(t)
		}
	}
}

func (e *element) add(t xml.StartElement) *element {
	added := &element{attribute: make(map[string]string, len(t.Attr))}
	for _, a := range t.Attr {
		added.attribute[a.Name.Local] = a.Value
	}
	if e.inner == nil {
		e.inner = map[string][]*element{}
	}
	e.inner[t.Name.Local] = append(e.inner[t.Name.Local], added)
	return added
}
