package netio

import "golang.org/x/sys/windows"

var lostErrors = []error{
	windows.WSAENOBUFS, windows.WSAEACCES, windows.WSAENETDOWN, windows.WSAENETUNREACH,
	windows.WSAEHOSTDOWN, windows.WSAEHOSTUNREACH, windows.WSAECONNREFUSED, windows.WSAECONNRESET,
	windows.WSAENETRESET, windows.WSAEADDRNOTAVAIL,
}

func isPermission(error) bool { return false }
