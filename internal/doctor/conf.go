package doctor

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A directive is one of nginx's, with what is in its block.
type directive struct {
	name  string
	args  []string
	block []directive // of an include, what the files say
	file  string
	line  int
}

// place says where it stands, for people.
func (d directive) place() string { return fmt.Sprintf("%s:%d", d.file, d.line) }

// text is the directive without its block, as one writes it.
func (d directive) text() string { return strings.Join(append([]string{d.name}, d.args...), " ") }

// is reports whether it has the name, and begins with the arguments.
func (d directive) is(name string, args ...string) bool {
	return d.name == name && len(d.args) >= len(args) && slices.Equal(d.args[:len(args)], args)
}

// flat is a block with what its includes say in their place.
func flat(block []directive) []directive {
	var all []directive
	for _, d := range block {
		if d.name == "include" {
			all = append(all, flat(d.block)...)
		} else {
			all = append(all, d)
		}
	}
	return all
}

// named are the directives of a block with a name.
func named(block []directive, name string) []directive {
	var all []directive
	for _, d := range flat(block) {
		if d.name == name {
			all = append(all, d)
		}
	}
	return all
}

// A dump is what `nginx -T` printed.
type dump struct {
	files []string // the first is the main one
	texts map[string]string
}

const fileMark = "# configuration file "

// parseDump reads what `nginx -T` printed on standard output.
func parseDump(text string) (*dump, error) {
	d := &dump{texts: map[string]string{}}
	var name string
	var body strings.Builder
	end := func() {
		if name != "" {
			d.texts[name] = body.String()
		}
		body.Reset()
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, fileMark); ok && strings.HasSuffix(strings.TrimRight(rest, "\n"), ":") {
			end()
			name = strings.TrimSuffix(strings.TrimRight(rest, "\n"), ":")
			d.files = append(d.files, name)
			continue
		}
		if name != "" {
			body.WriteString(line)
		}
	}
	end()
	if len(d.files) == 0 {
		return nil, fmt.Errorf("it holds no line %q: it is what `nginx -T` prints on standard output", fileMark+"…:")
	}
	return d, nil
}

// maxIncludes bounds how deep files include one another.
const maxIncludes = 16

// tree is the whole configuration.
func (d *dump) tree() ([]directive, error) { return d.parse(d.files[0], 0) }

func (d *dump) parse(file string, depth int) ([]directive, error) {
	if depth > maxIncludes {
		return nil, fmt.Errorf("%s: files include one another", file)
	}
	block, err := parseConf(file, d.texts[file])
	if err != nil {
		return nil, err
	}
	return block, d.include(block, depth)
}

// include fills the blocks of includes.
func (d *dump) include(block []directive, depth int) error {
	for i := range block {
		if block[i].name != "include" || len(block[i].args) != 1 {
			if err := d.include(block[i].block, depth); err != nil {
				return err
			}
			continue
		}
		pattern := block[i].args[0]
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(d.files[0]), pattern)
		}
		names := slices.Sorted(slices.Values(d.files))
		for _, name := range slices.Compact(names) {
			if ok, err := filepath.Match(pattern, name); name != pattern && (err != nil || !ok) {
				continue
			}
			inside, err := d.parse(name, depth+1)
			if err != nil {
				return err
			}
			block[i].block = append(block[i].block, inside...)
		}
	}
	return nil
}

// parseConf reads a file of nginx's configuration. It takes what nginx takes; what
// nginx refuses may come out as anything.
func parseConf(file, text string) ([]directive, error) {
	r := &confReader{file: file, text: text, line: 1}
	block, err := r.block(0)
	if err == nil && r.at < len(r.text) {
		err = r.wrong("a } too many")
	}
	return block, err
}

// maxBlocks bounds how deep blocks stand in one another.
const maxBlocks = 64

type confReader struct {
	file, text string
	at, line   int
}

func (r *confReader) wrong(what string) error { return fmt.Errorf("%s:%d: %s", r.file, r.line, what) }

// block reads directives up to the } that ends it, or the end of the file.
func (r *confReader) block(depth int) ([]directive, error) {
	if depth > maxBlocks {
		return nil, r.wrong("too many blocks in one another")
	}
	var all []directive
	var words []string
	line := 0
	for {
		word, mark, err := r.next()
		if err != nil {
			return all, err
		}
		switch mark {
		case 0:
			if len(words) == 0 {
				line = r.line
			}
			words = append(words, word)
			continue
		case ';', '{':
			if len(words) == 0 {
				return all, r.wrong(fmt.Sprintf("nothing stands before %q", mark))
			}
			d := directive{name: words[0], args: words[1:], file: r.file, line: line}
			if mark == '{' {
				if strings.HasSuffix(d.name, "_by_lua_block") {
					err = r.skip()
				} else if d.block, err = r.block(depth + 1); err == nil && r.at >= len(r.text) {
					err = r.wrong(d.name + " is not ended")
				} else if err == nil {
					r.at++ // the }
				}
				if err != nil {
					return all, err
				}
			}
			all, words = append(all, d), nil
		case '}', eof:
			if len(words) > 0 {
				return all, r.wrong(fmt.Sprintf("%s is not ended", words[0]))
			}
			return all, nil
		}
	}
}

// eof is the mark of the end.
const eof = -1

// next reads a word, or the mark that stands in its place. A } is left where it is.
func (r *confReader) next() (word string, mark rune, err error) {
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch c {
		case '\n':
			r.line++
			r.at++
		case ' ', '\t', '\r':
			r.at++
		case '#':
			if end := strings.IndexByte(r.text[r.at:], '\n'); end >= 0 {
				r.at += end
			} else {
				r.at = len(r.text)
			}
		case '}':
			return "", '}', nil
		case ';', '{':
			r.at++
			return "", rune(c), nil
		case '"', '\'':
			r.at++
			return r.word(c)
		default:
			return r.word(0)
		}
	}
	return "", eof, nil
}

// word reads up to the quote that ends it, or without one up to what ends a word.
func (r *confReader) word(quote byte) (string, rune, error) {
	var b strings.Builder
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '\\' && r.at+1 < len(r.text):
			r.at++
			switch next := r.text[r.at]; next {
			case '"', '\'', '\\':
				b.WriteByte(next)
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 'n':
				b.WriteByte('\n')
			default:
				b.WriteByte('\\')
				b.WriteByte(next)
			}
			if r.text[r.at] == '\n' {
				r.line++
			}
			r.at++
			continue
		case quote != 0 && c == quote:
			r.at++
			return b.String(), 0, nil
		case quote == 0 && (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';'):
			return b.String(), 0, nil
		case quote == 0 && c == '{' && !strings.HasSuffix(b.String(), "$"):
			return b.String(), 0, nil
		case c == '\n':
			r.line++
		}
		b.WriteByte(c)
		r.at++
	}
	if quote != 0 {
		return "", 0, r.wrong("a quoted word is not ended")
	}
	return b.String(), 0, nil
}

// skip passes over a block of another language, as far as its braces go.
func (r *confReader) skip() error {
	for depth := 1; r.at < len(r.text); r.at++ {
		switch r.text[r.at] {
		case '\n':
			r.line++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				r.at++
				return nil
			}
		}
	}
	return r.wrong("a block of Lua is not ended")
}
