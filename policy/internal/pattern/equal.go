package pattern

// equality is ==, of which a pattern is a path.
type equality struct{ traits }

func (*equality) match(_ *Cache, text, pattern string, _ uint32) (bool, error) {
	return text == pattern, nil
}
func (*equality) check(string) error                    { return nil }
func (*equality) needsMemory(string) bool               { return false }
func (*equality) steps(string) int                      { return 0 }
func (*equality) anchors(pattern string) Anchors        { return literalAnchors(pattern, true) }
func (*equality) literal(pattern string) (string, bool) { return pattern, true }
func (*equality) samples(pattern string) []string       { return []string{pattern} }
func (*equality) covers(string, string) bool            { return false }
func (*equality) coversEverything(string) bool          { return false }
func (*equality) isPlain(pattern string, _ bool) bool   { return isPlainPath(pattern, true, false) }
func (e *equality) unmatchable(pattern string) string   { return noPathBegins(e.literal(pattern)) }

func (*equality) problems(pattern string, all bool) []Problem {
	if !all {
		return nil
	}
	return append(escapeProblems(pattern), queryProblems(pattern)...)
}
