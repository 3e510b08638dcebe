//go:build !linux

package server

import (
	"errors"
	"net"
)

// peerUID knows nobody: listen_peer_uids lets nobody in where the kernel is not asked.
func peerUID(net.Conn) (int, error) {
	return 0, errors.New("who is at the other end of a socket is known on Linux alone")
}
