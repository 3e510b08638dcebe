// Package loopback tells whether a host is this machine.
package loopback

import (
	"net/netip"
	"strings"
)

// IsAddress reports whether a host, as in HOST:PORT or a URL, is a loopback address.
func IsAddress(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// IsName reports whether a host is this machine by name (RFC 6761, section 6.3): that
// can be two addresses, and whoever listens on the other is asked, or believed, too.
func IsName(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
