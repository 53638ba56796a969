// Package interop is tests against other people's programs. It is a module of
// its own, so that what it needs is no part of the product.
package interop
