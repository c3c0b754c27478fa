package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// command is a command line of Helm's.
type command struct {
	verb               string
	name, chart        string
	namespace, version string
	wait               bool
	timeout            string
	values             map[string]string
}

// alone are flags without a value.
var alone = []string{"wait", "install", "create-namespace", "atomic"}

func parse(args []string) (command, error) {
	c := command{values: map[string]string{}, namespace: "default", timeout: "300s"}
	var words []string
	for i := 0; i < len(args); i++ {
		name, is := strings.CutPrefix(args[i], "--")
		if !is {
			words = append(words, args[i])
			continue
		}
		name, value, with := strings.Cut(name, "=")
		if !with && !slices.Contains(alone, name) {
			i++
			if i == len(args) {
				return c, fmt.Errorf("flag --%s has no value", name)
			}
			value = args[i]
		}
		if err := c.flag(name, value); err != nil {
			return c, err
		}
	}
	if len(words) == 0 {
		return c, errors.New("no command")
	}
	c.verb, words = words[0], words[1:]
	if len(words) > 0 {
		c.name = words[0]
	}
	if len(words) > 1 {
		c.chart = path.Base(words[1])
	}
	return c, nil
}

func (c *command) flag(name, value string) error {
	switch name {
	case "namespace":
		c.namespace = value
	case "version":
		c.version = value
	case "timeout":
		c.timeout = value
	case "wait":
		c.wait = true
	case "install", "create-namespace", "atomic":
	case "set":
		key, v, is := strings.Cut(value, "=")
		if !is {
			return fmt.Errorf("value %q has no =", value)
		}
		c.values[key] = v
	default:
		return fmt.Errorf("unknown flag --%s", name)
	}
	return nil
}
