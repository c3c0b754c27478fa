// Package differential compares ebb's triggers with KEDA's scalers, whose place they take: both are
// given the same parameters and look at the same servers, and both must name the same metric with the
// same target, read the same value and activity, and refuse the same mistakes.
//
// Beside the states that each test sets up, every parameter is taken away and set to values of all
// sorts by itself. Where both are meant to differ is listed, with the reason, in deliberate_test.go.
//
// It is a module of its own, so that all that KEDA's scalers link stays out of the product. That is
// some three thousand packages: the first run compiles for many minutes.
package differential
