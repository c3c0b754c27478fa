package jobs

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Finished Job is one that has ended, well or not.
type Finished struct {
	Name   string
	Failed bool
	// Ended is when it did: a failed Job has no completion time, but its Failed condition tells.
	Ended time.Time
	// Created breaks ties.
	Created time.Time
}

// Excess returns the Jobs beyond the newest that are kept, of each kind, oldest first.
func Excess(all []Finished, keepSucceeded, keepFailed int) []Finished {
	var succeeded, failed []Finished
	for _, f := range all {
		if f.Failed {
			failed = append(failed, f)
		} else {
			succeeded = append(succeeded, f)
		}
	}
	out := append(oldest(succeeded, keepSucceeded), oldest(failed, keepFailed)...)
	slices.SortFunc(out, Finished.compare)
	return out
}

func oldest(all []Finished, keep int) []Finished {
	keep = max(0, keep)
	if len(all) <= keep {
		return nil
	}
	slices.SortFunc(all, Finished.compare)
	return all[:len(all)-keep]
}

func (f Finished) compare(g Finished) int {
	if c := f.Ended.Compare(g.Ended); c != 0 {
		return c
	}
	if c := f.Created.Compare(g.Created); c != 0 {
		return c
	}
	return strings.Compare(f.Name, g.Name)
}

// Outdated tells whether a Job belongs to another version of its ScaledJob, from the annotation that
// names the version it was made of.
func Outdated(annotation string, generation int64) bool {
	return annotation != strconv.FormatInt(generation, 10)
}

// Gradual tells whether Jobs of earlier versions are left to finish. The deprecated field goes first.
func Gradual(deprecated, strategy string) bool {
	if deprecated != "" {
		strategy = deprecated
	}
	return strategy == "gradual"
}
