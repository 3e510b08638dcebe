package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/table"

	"golang.org/x/text/unicode/norm"
)

// lintCharacters looks for what cannot be seen, for what looks like something else,
// and for texts that are not in composed form, each text once.
func (l *linter) lintCharacters() {
	l.eachText(func(text string, line uint32, field int, name bool) {
		if !norm.NFC.IsNormalString(text) {
			l.warn(line, field, "unicode-form", "%q holds a letter and an accent as two characters, which is another text than with one: write it composed (NFC)", finding.Shorten(text))
		}
		if strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
			return
		}
		if r, ok := unseen(text); ok {
			if !name || !impossible(text) { // that one is told of already
				l.warn(line, field, "invisible", "%q holds %U, which cannot be seen: a text without it is another one", finding.Shorten(text), r)
			}
			return
		}
		if why := confusable(text, name); why != "" {
			l.warn(line, field, "confusable", "%q %s", finding.Shorten(text), why)
		}
	})
}

// eachText calls f for each text of the policy, where it stands first: column by
// column, then in the g lines. Name says that it stands where a subject does.
func (l *linter) eachText(f func(text string, line uint32, field int, name bool)) {
	told := make([]bool, l.table.Symbols.Len())
	look := func(s table.Symbol, line uint32, field int, name bool) {
		if !told[s] {
			told[s] = true
			f(l.table.Symbols.Text(s), line, field, name)
		}
	}
	for col, values := range l.table.Rows.Cols {
		for row, s := range values {
			look(s, l.table.Rows.Lines[row], col+1, col == l.shape.Names)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(l.table.Edges)) {
		for _, e := range l.table.Edges[kind] {
			look(e.Name, e.Line, 1, kind == "g")
			look(e.Role, e.Line, 2, kind == "g")
		}
	}
}

// impossible reports whether no identity source may vouch for a name.
func impossible(name string) bool {
	if group, ok := strings.CutPrefix(name, "@"); ok {
		return authz.ValidGroup(group) != nil
	}
	return authz.ValidSubject(name) != nil
}

// unseen returns a character that cannot be seen. Joiners and variation selectors
// belong to some scripts and to emoji, and the ideographic blank to East Asian
// text: they are strange beside letters of ASCII alone.
func unseen(text string) (rune, bool) {
	before := rune(0)
	for i, r := range text {
		if r >= utf8.RuneSelf && authz.IsUnseen(r) {
			after, _ := utf8.DecodeRuneInString(text[i+utf8.RuneLen(r):])
			belongs := r == '\u200c' || r == '\u200d' || r == '\u3000' || unicode.Is(unicode.Variation_Selector, r)
			if !belongs || before < utf8.RuneSelf && (after < utf8.RuneSelf || after == utf8.RuneError) {
				return r, true
			}
		}
		before = r
	}
	return 0, false
}

// Characters that look like one which means something.
const (
	slashes = "\u2044\u2215\u29f8\uff0f"
	stars   = "\u204e\u2217\uff0a"
	ats     = "\ufe6b\uff20"
	dots    = "\u2024\uff0e"
)

// Letters of Greek that look like one of Latin; µ and Ω are units.
const greekTwins = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧικνορυχ"

// confusable says what in a text looks like something else, or returns "".
func confusable(text string, name bool) string {
	for _, twin := range []struct{ all, like string }{{slashes, "/"}, {stars, "*"}, {dots, "."}} {
		if i := strings.IndexAny(text, twin.all); i >= 0 {
			r, _ := utf8.DecodeRuneInString(text[i:])
			return fmt.Sprintf("holds %U, which looks like %s and is another character", r, twin.like)
		}
	}
	if r, _ := utf8.DecodeRuneInString(text); name && strings.ContainsRune(ats, r) {
		return fmt.Sprintf("begins with %U, which looks like @ and is another character", r)
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) })
	if word := disguised(words); word != "" {
		return fmt.Sprintf("has %q in Cyrillic letters among words in Latin ones, and each looks like a Latin letter", word)
	}
	for _, word := range words {
		latin := strings.ContainsFunc(word, func(r rune) bool { return unicode.Is(unicode.Latin, r) })
		if !latin {
			continue
		}
		for _, r := range word {
			script := ""
			switch {
			case unicode.Is(unicode.Cyrillic, r):
				script = "Cyrillic"
			case strings.ContainsRune(greekTwins, r):
				script = "Greek"
			case unicode.In(r, unicode.Armenian, unicode.Cherokee):
				script = "another script"
			default:
				continue
			}
			return fmt.Sprintf("mixes letters of Latin and %s in one word: %q is %U", script, r, r)
		}
	}
	return ""
}

// Letters of Cyrillic that look like one of Latin.
const cyrillicTwins = "асеорхуѕіјһԁԛԝАВЕЅІЈКМНОРСТХУ"

// disguised returns a word in Cyrillic that looks like one in Latin, where all
// other words are in Latin.
func disguised(words []string) string {
	found := ""
	for _, word := range words {
		twins := !strings.ContainsFunc(word, func(r rune) bool { return !strings.ContainsRune(cyrillicTwins, r) })
		switch {
		case twins && utf8.RuneCountInString(word) > 1:
			found = word
		case strings.ContainsFunc(word, func(r rune) bool { return !unicode.Is(unicode.Latin, r) }):
			return ""
		}
	}
	if len(words) < 2 {
		return ""
	}
	return found
}
