// Package oracle compares domain/scale with the autoscaler it speaks for, on random histories.
//
// It is a module of its own, so that upstream's autoscaler and what it links stay out of the
// product.
package oracle
