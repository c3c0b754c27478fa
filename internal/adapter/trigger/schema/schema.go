// Package schema knows every trigger type and its parameters, so that a misspelt one is found where
// it is written down and not when nothing scales.
//
// The list is upstream's; `make generate` takes it from the module this repository is built with.
// What ebb's own sources take beyond it is in a table here.
package schema

import (
	_ "embed" // for the list
	"maps"
	"slices"
	"strings"
	"sync"
)

//go:embed triggers.tsv
var listed string

// parameter is one that a type takes.
type parameter struct {
	name                     string
	metadata, env, auth      bool // where it may come from
	optional, deprecated     bool
	kind, fallback           string
	allowed, instead, others []string
}

// all is the list by type and name of the parameter.
var all = sync.OnceValue(func() map[string]map[string]parameter {
	out := map[string]map[string]parameter{"external-mock": {}}
	kind := ""
	for line := range strings.Lines(listed) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"), line == "":
		case !strings.HasPrefix(line, "\t"):
			kind = line
			out[kind] = map[string]parameter{}
		default:
			p := parse(line)
			out[kind][p.name] = p
		}
	}
	for kind, names := range own {
		if out[kind] == nil {
			out[kind] = map[string]parameter{}
		}
		for _, name := range names {
			out[kind][name] = parameter{name: name, metadata: true, env: true, auth: true, optional: true}
		}
	}
	return out
})

func parse(line string) parameter {
	column := append(strings.Split(line, "\t"), make([]string, 8)...)
	has := func(flag string) bool { return strings.Contains(column[2], flag) }
	return parameter{
		name: column[1], metadata: has("m"), env: has("e"), auth: has("a"), optional: has("o"), deprecated: has("d"),
		kind: column[3], fallback: column[4], instead: words(column[6]), allowed: words(column[5]), others: words(column[7]),
	}
}

func words(column string) []string {
	if column == "" {
		return nil
	}
	return strings.Split(column, "|")
}

// Known says whether there are triggers of a type, built in or not.
func Known(kind string) bool {
	_, ok := all()[kind]
	return ok
}

// Types lists the types there are, in order.
func Types() []string { return slices.Sorted(maps.Keys(all())) }

// Nearest returns the type that looks most like an unknown one, "" if none does.
func Nearest(kind string) string { return nearest(kind, Types()) }

// nearest returns the candidate fewest changes away, if they are few for so short a word.
func nearest(word string, candidates []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with their neighbour.
func distance(a, b string) int {
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
