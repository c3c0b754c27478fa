package redis

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValues(t *testing.T) {
	text := func(s string) value { return value{kind: '$', text: s} }
	for name, c := range map[string]struct {
		said string
		want value
		err  error
	}{
		"a word":             {"+OK\r\n", value{kind: '+', text: "OK"}, nil},
		"a number":           {":12\r\n", value{kind: ':', text: "12"}, nil},
		"a failure":          {"-ERR no\r\n", value{kind: failure, text: "ERR no"}, nil},
		"a long failure":     {"!6\r\nERR no\r\n", value{kind: failure, text: "ERR no"}, nil},
		"nothing":            {"_\r\n", value{kind: null}, nil},
		"no text":            {"$-1\r\n", value{kind: null}, nil},
		"no items":           {"*-1\r\n", value{kind: null}, nil},
		"a text with breaks": {"$4\r\na\r\nb\r\n", text("a\r\nb"), nil},
		"a map":              {"%1\r\n$1\r\na\r\n:1\r\n", value{kind: '%', text: "1", items: []value{text("a"), {kind: ':', text: "1"}}}, nil},
		"news": {">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", value{kind: push, text: "2", items: []value{
			text("invalidate"), {kind: '*', text: "1", items: []value{text("k")}},
		}}, nil},
		"a value with attributes": {"|1\r\n+ttl\r\n:1\r\n+OK\r\n", value{kind: '+', text: "OK"}, nil},
		"a cut text":              {"$4\r\na", value{}, io.ErrUnexpectedEOF},
		"a cut line":              {"+OK", value{}, io.EOF},
		"another protocol":        {"HTTP/1.1 400 Bad Request\r\n", value{}, errAnswer},
		"an empty line":           {"\r\n", value{}, errAnswer},
		"a text too long":         {"$99999999999\r\n", value{}, errAnswer},
		"too many items":          {"*99999999\r\n", value{}, errAnswer},
		"items too deep":          {strings.Repeat("*1\r\n", 20) + "+OK\r\n", value{}, errAnswer},
		"a line too long":         {"+" + strings.Repeat("x", 1<<20) + "\r\n", value{}, bufio.ErrBufferFull},
	} {
		got, err := readValue(bufio.NewReader(strings.NewReader(c.said)), 0)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v; want %v", name, err, c.err)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(value{})); c.err == nil && diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, diff)
		}
	}
	if got := string(encode([]string{"TYPE", "a b"})); got != "*2\r\n$4\r\nTYPE\r\n$3\r\na b\r\n" {
		t.Errorf("a command is %q", got)
	}
}
