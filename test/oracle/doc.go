// Package oracle compares domain/scale and domain/traffic/rollout with the autoscaler and the route
// controller they speak for, on random histories.
//
// EBB_HISTORIES says how many of scaling are compared, 50,000 if it does not: a million takes minutes.
//
// It is a module of its own, so that upstream's controllers and what they link stay out of the
// product.
package oracle
