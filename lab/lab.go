// Package lab builds networks with NATs, firewalls and hosts in Linux network
// namespaces, for tests of any program that must get through them.
package lab
