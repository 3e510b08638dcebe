// Package active makes one of the mistakes that are woven into a program: the one
// whose number the environment names, or none.
//
// Only what `make mutate` builds imports it.
package active

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
)

// What the environment says: the number of the mistake to make, and the file into
// which goes the number of each that could have been made. Numbers count from 1.
const (
	Number = "MUTATE_ACTIVE"
	Trace  = "MUTATE_TRACE"
)

var (
	chosen, _ = strconv.Atoi(os.Getenv(Number))
	trace     = open(os.Getenv(Trace))
	// reached says which numbers have been written.
	reached [1 << 16]atomic.Bool
)

func open(file string) *os.File {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}

// On reports whether to make a mistake.
func On(number int) bool {
	if trace != nil {
		note(number)
	}
	return number == chosen
}

func note(number int) {
	if reached[number].Swap(true) {
		return
	}
	if _, err := fmt.Fprintln(trace, number); err != nil {
		panic(err)
	}
}

// An integer is any of them.
type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

// More is n, or one more where the mistake is made.
func More[T integer](number int, n T) T {
	if On(number) {
		return n + 1
	}
	return n
}

// Less is n, or one less where the mistake is made.
func Less[T integer](number int, n T) T {
	if On(number) {
		return n - 1
	}
	return n
}

// Another is n, or where the mistake is made a number that no case has.
func Another[T integer](number int, n T) T {
	if On(number) {
		return ^n
	}
	return n
}

// AnotherText is text, or where the mistake is made one that no case has.
func AnotherText[T ~string](number int, text T) T {
	if On(number) {
		return text + "\x00"
	}
	return text
}
