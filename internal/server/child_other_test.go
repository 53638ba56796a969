//go:build !linux

package server

func child() bool { return false }
