package policy

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// patternCall finds where a matcher applies a pattern function to a field of
// the request and one of the policy.
var patternCall = regexp.MustCompile(`\b(keyMatch[2345]|globMatch|regexMatch|ipMatch)\(\s*r_\w+\s*,\s*p_(\w+)\s*\)`)

// evalCall finds where a matcher evaluates a rule of the policy.
var evalCall = regexp.MustCompile(`\beval\(\s*p_(\w+)\s*\)`)

// checkPatterns compiles every pattern and rule of the policy. Stock Casbin
// would fail each request that reaches a bad one.
func (l *loader) checkPatterns() {
	for _, call := range patternCall.FindAllStringSubmatch(l.def.matcher, -1) {
		l.checkColumn(call[2], "pattern", func(text string) error { return checkPattern(call[1], text) })
	}
	for _, call := range evalCall.FindAllStringSubmatch(l.def.matcher, -1) {
		l.checkColumn(call[1], "rule", func(text string) error { return checkRule(l.def, text) })
	}
}

// checkColumn checks each value of a column once.
func (l *loader) checkColumn(field, rule string, check func(string) error) {
	col := l.def.policyField(field)
	if col < 0 {
		return
	}
	checked := make([]bool, len(l.out.syms.texts))
	for row, s := range l.out.rules.cols[col] {
		if checked[s] {
			continue
		}
		checked[s] = true
		if err := check(l.out.syms.text(s)); err != nil {
			l.fail(int(l.out.rules.lines[row]), rule, "%s %q: %v", field, shorten(l.out.syms.text(s)), err)
		}
	}
}

// checkPattern compiles a pattern as a function of Casbin's does.
func checkPattern(function, pattern string) error {
	switch function {
	case "globMatch":
		if !doublestar.ValidatePattern(pattern) {
			return errors.New("is not a pattern: a [, { or \\ is not closed; put \\ before it to mean it literally")
		}
	case "ipMatch":
		if net.ParseIP(pattern) == nil {
			if _, _, err := net.ParseCIDR(pattern); err != nil {
				return errors.New("is neither an IP address nor a range such as 192.0.2.0/24")
			}
		}
	case "regexMatch":
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("is not a regular expression: %w", err)
		}
	default: // keyMatch2 to keyMatch5 turn the pattern into a regular expression
		if isPlainKey(pattern) {
			return nil
		}
		return tryKeyMatch(function, pattern)
	}
	return nil
}

// isPlainKey reports whether a pattern of keyMatch2 to keyMatch5 holds nothing
// that a regular expression could fail on: most do, and compiling a million
// would take long.
func isPlainKey(pattern string) bool {
	for i := range len(pattern) {
		c := pattern[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '-', c == '_', c == '.', c == ' ', c == ',':
		case c == '*' && i > 0 && pattern[i-1] == '/':
		default:
			return false
		}
	}
	return true
}

// tryKeyMatch asks Casbin itself; its functions panic on a bad pattern.
func tryKeyMatch(function, pattern string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			text, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = fmt.Errorf("cannot be compiled, %s reads it as a regular expression: %s", function, text)
		}
	}()
	match := map[string]func(string, string) bool{
		"keyMatch2": util.KeyMatch2, "keyMatch3": util.KeyMatch3, "keyMatch4": util.KeyMatch4, "keyMatch5": util.KeyMatch5,
	}[function]
	match("", pattern)
	return nil
}

// checkRule compiles a rule of the policy as eval does.
func checkRule(def *definition, rule string) error {
	ev := &evaluator{engine: &engine{def: def}}
	_, err := govaluate.NewEvaluableExpressionWithFunctions(util.EscapeAssertion(rule), ev.functions())
	if err != nil {
		return fmt.Errorf("is not a rule: %w", err)
	}
	return nil
}
