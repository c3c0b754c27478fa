// Package clients names the clients of others that the end-to-end suite drives against ebb: Knative's
// kn. It is a module of its own, so that what they link stays out of the product.
package clients
