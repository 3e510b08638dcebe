package freeport

import (
	"net"
	"testing"
)

func TestAPortIsGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 2000 {
		port := Port(t)
		if given[port] {
			t.Fatalf("%d was given twice", port)
		}
		if port >= 32768 {
			t.Fatalf("%d: the kernel gives it to others", port)
		}
		given[port] = true
	}
}

func TestWhatSomebodyHasIsNotGiven(t *testing.T) {
	port := Port(t)
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it is not used
	if _, err := hold(port, nil); err == nil {
		t.Error("somebody listens there")
	}
	other := Port(t)
	if _, err := hold(other-1, []int{1}); err == nil {
		t.Error("the second was given to another")
	}
}

func TestAPortIsFreeAgainAfterTheTest(t *testing.T) {
	var port int
	t.Run("", func(t *testing.T) { port = Port(t, 10_000) })
	held, err := hold(port, []int{10_000})
	if err != nil {
		t.Fatal(err)
	}
	release(held)
}
