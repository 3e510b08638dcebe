package witness

import (
	"unicode"
	"unicode/utf8"
)

// A kind is what a character is to pathguard.
type kind uint8

const (
	plain kind = iota
	slash
	dot
	blank
	forbidden
)

func kindOf(r rune) kind {
	switch {
	case r == '/':
		return slash
	case r == '.':
		return dot
	case r == '\\' || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || !utf8.ValidRune(r):
		return forbidden
	case unicode.IsSpace(r):
		return blank
	}
	return plain
}

// A guard is how far a path is one that pathguard accepts, but for its length.
type guard uint8

const (
	nothing  guard = iota // before the first slash
	begun                 // behind a slash
	oneDot                // a segment that is . so far
	twoDots               // or ..
	segment               // a segment that may end
	trailing              // one that may not, for it ends with a blank
	refused
)

func (g guard) accepts() bool { return g == segment }

func (g guard) next(r rune) guard {
	k := kindOf(r)
	switch {
	case k == forbidden, g == nothing && k != slash, k == slash && g != nothing && g != segment, k == blank && g == begun:
		return refused
	case k == slash:
		return begun
	case k == blank:
		return trailing
	case k == dot && g == begun:
		return oneDot
	case k == dot && g == oneDot:
		return twoDots
	}
	return segment
}
