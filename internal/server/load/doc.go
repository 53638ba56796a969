// Package load makes peers for measurements: as many as one wants, each with a
// key and an endpoint of its own, on one socket of the loopback interface.
//
// All of 127.0.0.0/8 is this host. The kernel is told with each datagram which
// of these addresses it comes from, and tells where each one went (ip(7),
// IP_PKTINFO). To a server on 127.0.0.1 that is a million machines. Linux only.
package load
