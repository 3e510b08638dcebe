package pattern

import (
	"regexp"
	"sync/atomic"
)

// A Cache answers as Casbin's pattern functions do, without compiling a
// regular expression for each question as they do. The zero Cache is empty; it
// is safe for concurrent use.
type Cache struct {
	// compiled remembers patterns by their symbols: a later one takes the
	// place of an earlier one, so that memory stays as it is.
	compiled [1024]atomic.Pointer[expression]
}

// An expression is a pattern, compiled.
type expression struct {
	function string
	pattern  uint32
	regex    *regexp.Regexp
	names    []string // of keyMatch4, by group
}

// Match reports whether a text matches a pattern, which has a number of its own.
// The error says that it cannot be compiled, where Casbin panics.
func (m *Cache) Match(f Func, text, pattern string, id uint32) (bool, error) {
	return f.of.match(m, text, pattern, id)
}

// recall returns what a function made of a pattern, or nil.
func (m *Cache) recall(function string, id uint32) *expression {
	if m == nil {
		return nil
	}
	if e := m.compiled[int(id)%len(m.compiled)].Load(); e != nil && e.pattern == id && e.function == function {
		return e
	}
	return nil
}

// keep remembers an expression.
func (m *Cache) keep(e *expression) {
	if m != nil {
		m.compiled[int(e.pattern)%len(m.compiled)].Store(e)
	}
}
