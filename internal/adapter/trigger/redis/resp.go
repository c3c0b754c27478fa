package redis

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// largest bounds a text, and most the parts of a value. Servers answer with less: a key's name
	// and a number are the longest.
	largest = 1 << 20
	most    = 1 << 10
	deepest = 8
)

// The kinds of values that matter here.
const (
	push    = '>'
	failure = '-'
	null    = '_'
)

var errAnswer = errors.New("the answer is not what a Redis server says")

// A value is one of Redis' protocol, version 3.
type value struct {
	kind  byte
	text  string
	items []value
}

// encode returns a command as servers read it.
func encode(command []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, part := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(part), part)
	}
	return []byte(b.String())
}

// readValue reads a value and all that is in it.
func readValue(r *bufio.Reader, depth int) (v value, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return v, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' || depth > deepest {
		return v, errAnswer
	}
	v.kind, v.text = line[0], string(line[1:len(line)-2])
	switch v.kind {
	case '$', '!', '=':
		return readText(r, v)
	case '*', push, '~', '%', '|':
		return readItems(r, v, depth)
	case '+', failure, ':', ',', '#', '(', null:
		return v, nil
	default:
		return v, errAnswer
	}
}

func readText(r *bufio.Reader, v value) (value, error) {
	size, err := strconv.Atoi(v.text)
	switch {
	case err != nil || size < -1 || size > largest:
		return v, errAnswer
	case size == -1:
		return value{kind: null}, nil
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(r, text); err != nil {
		return v, err
	}
	v.text = string(text[:size])
	if v.kind == '!' {
		v.kind = failure
	}
	return v, nil
}

func readItems(r *bufio.Reader, v value, depth int) (value, error) {
	n, err := strconv.Atoi(v.text)
	switch {
	case err != nil || n < -1 || n > most:
		return v, errAnswer
	case n == -1:
		return value{kind: null}, nil
	case v.kind == '%' || v.kind == '|':
		n *= 2
	}
	for range n {
		item, err := readValue(r, depth+1)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
	}
	if v.kind == '|' { // attributes of the value that follows
		return readValue(r, depth+1)
	}
	return v, nil
}
