// Package punch makes a path between two peers behind NATs.
package punch
