package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fromEnv ends the name of a parameter whose value is the name of a variable.
const fromEnv = "FromEnv"

// A Problem is what is wrong with a trigger.
type Problem struct {
	// Parameter is the one concerned, "" for the type.
	Parameter string
	// Message says what is wrong and what would be right; it holds no values from authentication.
	Message string
	// Refused says that the trigger can not work so; it is a warning otherwise.
	Refused bool
}

// String implements fmt.Stringer.
func (p Problem) String() string {
	if p.Parameter == "" {
		return p.Message
	}
	return p.Parameter + ": " + p.Message
}

// Check judges a trigger by its type and parameters. The values from authentication and of the
// container's variables are nil where they are not known; nothing is said to be missing then that
// could come from there.
func Check(kind string, metadata, auth, env map[string]string) []Problem {
	known, ok := all()[kind]
	if !ok {
		message := fmt.Sprintf("there is no trigger of type %q", kind)
		if near := Nearest(kind); near != "" {
			message += fmt.Sprintf("; did you mean %q?", near)
		}
		return []Problem{{Message: message, Refused: true}}
	}
	c := check{kind: kind, known: known, metadata: metadata, auth: auth, env: env}
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		c.given(name)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		c.required(known[name])
	}
	return c.problems
}

// check is one trigger being judged.
type check struct {
	kind                string
	known               map[string]parameter
	metadata, auth, env map[string]string
	meant               []string // parameters that misspelt ones were taken for
	problems            []Problem
}

func (c *check) refuse(name, format string, args ...any) {
	c.problems = append(c.problems, Problem{name, fmt.Sprintf(format, args...), true})
}

func (c *check) warn(name, format string, args ...any) {
	c.problems = append(c.problems, Problem{name, fmt.Sprintf(format, args...), false})
}

// given judges a parameter that is there.
func (c *check) given(name string) {
	if p, ok := c.known[name]; ok {
		c.direct(p)
		return
	}
	if base, ok := strings.CutSuffix(name, fromEnv); ok {
		if p, known := c.known[base]; known {
			c.variable(name, p)
			return
		}
	}
	if open[c.kind] {
		return
	}
	near := c.nearest(name)
	if near == "" {
		c.warn(name, "triggers of type %q have no such parameter; it is ignored", c.kind)
		return
	}
	c.meant = append(c.meant, strings.TrimSuffix(near, fromEnv))
	c.refuse(name, "triggers of type %q have no such parameter; did you mean %q?", c.kind, near)
}

// nearest finds the parameter that was meant: one that may be in metadata and is not there already.
func (c *check) nearest(name string) string {
	var free []string
	for other, p := range c.known {
		if p.deprecated {
			continue
		}
		for candidate, possible := range map[string]bool{other: p.metadata, other + fromEnv: p.env} {
			if _, taken := c.metadata[candidate]; possible && !taken {
				free = append(free, candidate)
			}
		}
	}
	slices.Sort(free)
	return nearest(name, free)
}

// direct judges the value of a parameter in metadata.
func (c *check) direct(p parameter) {
	value := strings.TrimSpace(c.metadata[p.name])
	switch {
	case !p.metadata && p.auth:
		c.warn(p.name, "is read from authentication only; what is in metadata is ignored")
	case !p.metadata:
		c.warn(p.name, "is not read from metadata; use %s", p.name+fromEnv)
	case p.deprecated && len(p.instead) > 0:
		c.warn(p.name, "is deprecated; use %s", strings.Join(p.instead, " and "))
	case p.deprecated:
		c.warn(p.name, "is deprecated; leave it out")
	case value != "":
		if message := p.judge(value); message != "" {
			c.refuse(p.name, "%s", message)
		}
	}
}

// variable judges a parameter whose value is in a variable.
func (c *check) variable(name string, p parameter) {
	if !p.env {
		c.warn(name, "%s is not read from variables; what is there is ignored", p.name)
		return
	}
	value, ok := c.env[c.metadata[name]]
	if value = strings.TrimSpace(value); !ok || value == "" {
		return
	}
	if p.judge(value) != "" { // a variable may hold a secret: its value is not repeated
		c.refuse(name, "the variable %s does not hold what %s takes", c.metadata[name], p.name)
	}
}

// required says that a parameter is missing.
func (c *check) required(p parameter) {
	if p.optional || p.deprecated || p.fallback != "" || c.has(p) || p.auth && c.auth == nil {
		return
	}
	if slices.Contains(c.meant, p.name) {
		return // one mistake is said once
	}
	for _, other := range p.others {
		if q, ok := c.known[other]; ok && c.has(q) {
			return
		}
	}
	c.refuse(p.name, "is required by triggers of type %q", c.kind)
}

func (c *check) has(p parameter) bool {
	if p.metadata && strings.TrimSpace(c.metadata[p.name]) != "" || p.auth && c.auth[p.name] != "" {
		return true
	}
	variable := c.metadata[p.name+fromEnv]
	return p.env && variable != "" && (c.env == nil || c.env[variable] != "")
}

// judge says what is wrong with a value, "" if nothing is.
func (p parameter) judge(value string) string {
	if len(p.allowed) > 0 {
		return p.among(value)
	}
	switch p.kind {
	case "bool":
		if _, err := strconv.ParseBool(value); err != nil {
			return fmt.Sprintf("%q is neither true nor false", value)
		}
	case "int":
		var n int64
		if json.Unmarshal([]byte(value), &n) != nil {
			return fmt.Sprintf("%q is no whole number", value)
		}
	case "float":
		var n float64
		if json.Unmarshal([]byte(value), &n) != nil {
			return fmt.Sprintf("%q is no number", value)
		}
	case "duration":
		if !isDuration(value) {
			return fmt.Sprintf("%q is no duration, such as 30s, nor a number of milliseconds", value)
		}
	}
	return ""
}

func isDuration(value string) bool {
	if d, err := time.ParseDuration(value); err == nil {
		return d >= 0
	}
	_, err := strconv.ParseUint(value, 10, 63)
	return err == nil
}

// among judges a value of which only some are allowed.
func (p parameter) among(value string) string {
	for one := range strings.SplitSeq(value, ",") {
		one = strings.TrimSpace(one)
		if slices.Contains(p.allowed, one) {
			continue
		}
		message := fmt.Sprintf("%q is none of %s", one, strings.Join(p.allowed, ", "))
		if near := nearest(one, p.allowed); near != "" {
			message += fmt.Sprintf("; did you mean %q?", near)
		}
		return message
	}
	return ""
}
