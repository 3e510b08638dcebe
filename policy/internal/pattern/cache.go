package pattern

import (
	"io"
	"math/bits"
	"regexp"
	"sync/atomic"
	"unicode/utf8"
)

// A Cache answers as Casbin's pattern functions do, without compiling a
// regular expression for each question as they do. The zero Cache remembers
// nothing, and neither does nil. It is safe for concurrent use, but for what
// Metered returns.
type Cache struct {
	compiled *compiled
	meter    func(steps int) error
}

// What is remembered is bounded by instructions: they take up to 160 bytes each,
// so that a cache holds some 80 MB at most.
const maxRemembered = 512 << 10

// compiled are expressions, found by function and pattern. There are places for
// twice as many as a policy has, so that each finds one near its own.
type compiled struct {
	places     []atomic.Pointer[expression]
	remembered atomic.Int64 // instructions
	hand       atomic.Uint32
}

// reach is how far from its own place an expression may be.
const reach = 16

// An expression is a pattern, compiled.
type expression struct {
	function     string
	pattern      uint32
	regex        *regexp.Regexp
	instructions int
	names        []string // of keyMatch4, by group
}

// newExpression compiles a regular expression that is not too large.
func newExpression(function, text string) (*expression, error) {
	e := &expression{function: function, instructions: len(text) + 4}
	if !isQuick(text) {
		s := sizeOfRegex(text)
		if err := s.check(); err != nil {
			return nil, err
		}
		e.instructions = max(1, s.instructions)
	}
	var err error
	e.regex, err = regexp.Compile(text)
	return e, err
}

// NewCache returns a cache for a policy of so many patterns that need memory.
func NewCache(patterns int) *Cache {
	patterns = min(patterns, maxRemembered/reach) // hardly one is smaller
	if patterns == 0 {
		return &Cache{}
	}
	return &Cache{compiled: &compiled{places: make([]atomic.Pointer[expression], max(reach, 1<<bits.Len(uint(2*patterns-1))))}}
}

// Metered returns a cache that shares what m remembers, for one goroutine. Before
// each piece of work the meter is told how many steps it takes at most; its error
// ends the match, and is returned.
func (m *Cache) Metered(meter func(steps int) error) *Cache { return &Cache{m.compiled, meter} }

// Match reports whether a text matches a pattern, which has a number of its own;
// [NoNumber] is one that is not remembered. The error says that the pattern
// cannot be compiled, where Casbin panics, or is the meter's.
func (m *Cache) Match(f Func, text, pattern string, id uint32) (bool, error) {
	return f.of.match(m, text, pattern, id)
}

// NoNumber stands for a pattern that has none, because it is made anew each time.
const NoNumber = 1<<32 - 1

func (m *Cache) spend(steps int) error {
	if m == nil || m.meter == nil {
		return nil
	}
	return m.meter(steps)
}

// near returns the places where a pattern may be.
func (c *compiled) near(function string, id uint32) (first, mask int) {
	// The last character tells the functions apart.
	hash := (uint64(id)<<8 | uint64(function[len(function)-1])) * 0x9e3779b97f4a7c15
	return int(hash >> 33), len(c.places) - 1
}

// recall returns what a function made of a pattern, or nil.
func (m *Cache) recall(function string, id uint32) *expression {
	if m == nil || m.compiled == nil || id == NoNumber {
		return nil
	}
	first, mask := m.compiled.near(function, id)
	for i := range reach {
		e := m.compiled.places[(first+i)&mask].Load()
		if e != nil && e.pattern == id && e.function == function {
			return e
		}
	}
	return nil
}

// A compiler is a function that makes an expression of a pattern; of one with holes,
// an expression that matches marked paths.
type compiler interface {
	its() *traits
	compile(pattern string, holes []hole) (*expression, error)
}

// inCache is by what name a function is remembered: what it makes of a pattern with
// holes is not what it makes of the same text elsewhere.
func (t *traits) inCache(holes []hole) string {
	if len(holes) > 0 {
		return t.name + " of a path"
	}
	return t.name
}

// made returns what a function makes of a pattern, which is compiled where m does not
// remember it.
func (m *Cache) made(by compiler, pattern string, id uint32, holes []hole) (*expression, error) {
	if e := m.recall(by.its().inCache(holes), id); e != nil {
		return e, nil
	}
	e, err := by.compile(pattern, holes)
	if err != nil {
		return nil, err
	}
	return e, m.keep(e, id)
}

// keep remembers an expression that was compiled just now, which it counts as
// work. Where there is too much it forgets others, one place after another.
func (m *Cache) keep(e *expression, id uint32) error {
	if m == nil {
		return nil
	}
	if m.compiled != nil && id != NoNumber {
		e.pattern = id
		m.compiled.put(e)
	}
	return m.spend(compileSteps * e.instructions)
}

// compileSteps is how many steps an instruction takes to be compiled, more or
// less.
const compileSteps = 32

func (c *compiled) put(e *expression) {
	first, mask := c.near(e.function, e.pattern)
	place := &c.places[first&mask] // where all are taken
	for i := range reach {
		if p := &c.places[(first+i)&mask]; p.Load() == nil {
			place = p
			break
		}
	}
	c.account(e.instructions, place.Swap(e))
	for range c.places {
		if c.remembered.Load() <= maxRemembered {
			return
		}
		if p := &c.places[int(c.hand.Add(1))&mask]; p != place {
			c.account(0, p.Swap(nil))
		}
	}
}

func (c *compiled) account(added int, gone *expression) {
	if gone != nil {
		added -= gone.instructions
	}
	c.remembered.Add(int64(added))
}

// atOnce is up to how many steps a match is made without asking the meter in
// between: one or two milliseconds.
const atOnce = 128 << 10

// matches reports whether a text matches.
func (e *expression) matches(m *Cache, text string) (bool, error) {
	if steps := e.instructions * len(text); steps <= atOnce {
		if err := m.spend(steps); err != nil {
			return false, err
		}
		return e.regex.MatchString(text), nil
	}
	r := &meteredText{text: text, meter: m, instructions: e.instructions}
	matched := e.regex.MatchReader(r)
	return matched && r.err == nil, r.err
}

// find returns the text and its groups where it matches, otherwise nil.
func (e *expression) find(m *Cache, text string) ([]string, error) {
	if steps := e.instructions * len(text); steps <= atOnce {
		if err := m.spend(steps); err != nil {
			return nil, err
		}
		return e.regex.FindStringSubmatch(text), nil
	}
	r := &meteredText{text: text, meter: m, instructions: e.instructions}
	places := e.regex.FindReaderSubmatchIndex(r)
	if places == nil || r.err != nil {
		return nil, r.err
	}
	groups := make([]string, len(places)/2)
	for i := range groups {
		if begin, end := places[2*i], places[2*i+1]; begin >= 0 {
			groups[i] = text[begin:end]
		}
	}
	return groups, nil
}

// A meteredText is a text that ends early when its meter has had enough: the only
// way to end a match that has begun.
type meteredText struct {
	text         string
	meter        *Cache
	instructions int
	owed         int // steps that the meter has not been told of
	err          error
}

// ReadRune is io.RuneReader's.
func (t *meteredText) ReadRune() (rune, int, error) {
	if t.err != nil || t.text == "" {
		return 0, 0, io.EOF
	}
	if t.owed += t.instructions; t.owed >= atOnce/4 {
		if t.err = t.meter.spend(t.owed); t.err != nil {
			return 0, 0, io.EOF
		}
		t.owed = 0
	}
	r, n := utf8.DecodeRuneInString(t.text)
	t.text = t.text[n:]
	return r, n, nil
}
