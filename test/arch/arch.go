// Package arch keeps the shape of the repository: which folder may import which, how large files and
// packages may grow, what every package must say about itself.
//
// Its tests read what the go command lists, so nothing has to be registered anywhere.
package arch
