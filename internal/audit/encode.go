package audit

import (
	"strconv"
	"unicode/utf8"
)

// An encoder writes the members of an object.
type encoder struct{ b []byte }

func (e *encoder) key(name string) {
	if e.b[len(e.b)-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, `":`...)
}

// text writes a text that is not empty.
func (e *encoder) text(name, value string) {
	if value != "" {
		e.key(name)
		e.b = appendText(e.b, value)
	}
}

func (e *encoder) int(name string, value int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, value, 10)
}

// count writes a number that is not zero.
func (e *encoder) count(name string, value int64) {
	if value != 0 {
		e.int(name, value)
	}
}

// appendSeconds appends seconds with microseconds.
func appendSeconds(b []byte, seconds float64) []byte {
	return strconv.AppendFloat(b, seconds, 'f', 6, 64)
}

// appendText appends a JSON string of RFC 8259 section 7 that is printable ASCII.
func appendText(b []byte, text string) []byte {
	b = append(b, '"')
	for i := 0; i < len(text); {
		plain := i
		for i < len(text) && text[i] >= ' ' && text[i] < 0x7f && text[i] != '"' && text[i] != '\\' {
			i++
		}
		b = append(b, text[plain:i]...)
		if i == len(text) {
			break
		}
		c := text[i]
		if c < utf8.RuneSelf {
			if c == '"' || c == '\\' {
				b = append(b, '\\', c)
			} else {
				b = appendEscape(b, rune(c))
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		if r > 0xffff { // a surrogate pair
			r -= 0x10000
			b = appendEscape(b, 0xd800+r>>10)
			r = 0xdc00 + r&0x3ff
		}
		b = appendEscape(b, r)
	}
	return append(b, '"')
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
