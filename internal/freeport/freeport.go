// Package freeport finds ports for servers that tests start.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Port is a TCP port of 127.0.0.1 on which nobody listens, and so are those that are so much
// higher. Until the test is over, nobody else gets one of them from here, in another program
// neither: UDP's port of the same number is held for that. All are below those that Linux
// gives to whoever wants any, and connects from (32768, ip(7)).
func Port(t *testing.T, higher ...int) int {
	t.Helper()
	const lowest, most = 10_240, 12_000
	for range 1000 {
		port := lowest + rand.IntN(most)
		if held, err := hold(port, higher); err == nil {
			t.Cleanup(func() { release(held) })
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Address is 127.0.0.1 with such a port.
func Address(t *testing.T) string {
	t.Helper()
	return address(Port(t))
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func hold(port int, higher []int) (held []net.PacketConn, err error) {
	for _, more := range append([]int{0}, higher...) {
		conn, err := net.ListenPacket("udp", address(port+more))
		if err != nil {
			release(held)
			return nil, err
		}
		held = append(held, conn)
		l, err := net.Listen("tcp", address(port+more))
		if err != nil {
			release(held)
			return nil, err
		}
		_ = l.Close() // only its port is wanted
	}
	return held, nil
}

func release(held []net.PacketConn) {
	for _, conn := range held {
		_ = conn.Close() // the test is over
	}
}
