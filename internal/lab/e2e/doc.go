// Package e2e tests the real command from end to end: `bodkin` processes on the
// hosts of a namespace lab, behind the kernel's NATs, with a server that is a
// process too. It has tests only, and they need Linux.
package e2e
