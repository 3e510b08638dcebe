#!/usr/bin/env bash
# Makes known mistakes in the index, one at a time, and asks whether the tests
# notice: `make mutate`. It works on a copy and takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp -r go.mod go.sum authz pathguard policy "$dir"
survived=0 mutations=0

# mutate NAME FILE FROM TO: the text FROM, which must stand there once, becomes TO.
mutate() {
  local name=$1 file=policy/internal/$2 output
  mutations=$((mutations + 1))
  cp "$file" "$dir/$file"
  if ! FROM=$3 TO=$4 perl -0pi -e '$n = s/\Q$ENV{FROM}\E/$ENV{TO}/; die "not there\n" unless $n' "$dir/$file"; then
    echo "OUTDATED  $name: the text is not in $file" && survived=$((survived + 1))
    return
  fi
  if output=$(cd "$dir" && go test ./policy/internal/{engine,pattern} -run "${TESTS:-PruningTraps|TrickyPatterns|SayEnough}" 2>&1 &&
    go test ./policy/internal/{engine,pattern} -run 'StockDecides|Anchor|PlainKeys|CasbinExamples' -rapid.checks=300 -rapid.nofailfile 2>&1); then
    echo "SURVIVED  $name" && survived=$((survived + 1))
  elif grep -q 'build failed' <<<"$output"; then
    echo "OUTDATED  $name: does not compile" && survived=$((survived + 1))
    grep -m3 '^policy/' <<<"$output"
  else
    echo "caught    $name: $(grep -oE -- '--- FAIL: [^ ]+' <<<"$output" | sed 's/--- FAIL: //; s/TestPruningTraps.//' | grep -v '^TestPruningTraps$' | sort -u | head -3 | paste -sd, -)"
  fi
  cp "$file" "$dir/$file"
}

# What a pattern must hold.
mutate 'glob: the slash before the wildcard is kept' pattern/glob.go 'prefix := strings.TrimSuffix(pattern[:first], "/")' 'prefix := pattern[:first]'
mutate 'glob: the slash of a suffix is kept' pattern/glob.go 'suffix = strings.TrimPrefix(suffix, "/")' 'suffix = suffix + ""'
mutate 'an alternation does not un-anchor' pattern/regex.go "case c == '|':" "case c == 1:"
mutate 'a quantifier leaves the character before it' pattern/regex.go 'strings.IndexByte(quantifiers, pattern[end]) < 0' 'strings.IndexByte(quantifiers, pattern[end]) < 9'
mutate 'a flag group leaves the character before it' pattern/regex.go '`*?+{(\`, slashStar' '`*?+{`, slashStar'
mutate 'slash and star become slash, dot and star everywhere' pattern/regex.go 'slashStar && pattern[end]' 'pattern[end]'
mutate 'bytes that are not UTF-8 count' pattern/anchors.go 'if r == utf8.RuneError {' 'if r == 1 {'
mutate 'regexMatch is anchored without a caret' pattern/regex.go 'if form.begins {' 'if true {'
mutate 'regexMatch is anchored without a dollar' pattern/regex.go 'form.ends && !opaque' '!opaque'
mutate 'a backslash or a flag leaves a suffix as it is' pattern/regex.go 'form.ends && !opaque' 'form.ends'
mutate 'a dot is a dot' pattern/anchors.go 'strings.ReplaceAll(s, ".", string([]byte{AnyRune}))' 's'
mutate 'a name is part of a suffix' pattern/regex.go 'if lastName >= 0 {' 'if false {'
mutate 'keyMatch5 keeps the query' engine/names.go 'p.texts = append(p.texts[:0], c.pattern.Func.Reads(path))' 'p.texts = append(p.texts[:0], path)'
mutate 'a name is a prefix' pattern/names.go 'return end, path[at:end] == name' 'return end, strings.HasPrefix(path[at:end], name)'
mutate 'anonymous has a name' engine/names.go 'if q.Principal.IsAnonymous() {' 'if false {'
mutate 'the index knows no place of a name' engine/names.go 'k.places = append(k.places, p)' '_ = p'
# The normal form.
mutate 'negation is forgotten' model/term.go '{c.Atom, negate}' '{c.Atom, false}'
mutate 'a negated && stays one' model/term.go '(c.Op == Or) != negate' 'c.Op == Or'
mutate '! binds to all that follows' model/term.go 'ors, ok := p.split(i, j, "||")' 'if p.tokens[i].Kind == govaluate.PREFIX && j-i > 2 { t.Op, t.Kids = Not, []*Term{p.parse(i+1, j)}; return t }
	ors, ok := p.split(i, j, "||")'
mutate 'a ternary is taken apart' model/term.go 'case t.Kind == govaluate.TERNARY || t.Kind' 'case t.Kind'
mutate 'a negated part prunes' engine/plan.go 'if l.Negated {' 'if false {'
mutate 'a guard holds the wrong way round' engine/plan.go 'holds == g.Negated' 'holds != g.Negated'
TESTS='ErrorsDeny' mutate 'a guard that fails is no error' engine/plan.go 'err != nil && i < c.early' 'err != nil && i < 0'
TESTS='ErrorsDeny' mutate 'a guard that fails alone is no error' engine/plan.go '; c.always {' '; false {'
TESTS='ErrorsDeny' mutate 'behind a guard that fails, others count' engine/plan.go 'case err != nil:
			return true, nil
		case' 'case'
TESTS='ErrorsDeny' mutate 'an empty policy has no need of rules' engine/engine.go 'if ev.engine.Model.Evaluates {' 'if false {'
TESTS='ErrorsDeny' mutate 'rows that no lookup finds need no address' engine/plan.go 'if c.address && ' 'if false && '
mutate 'what is asked before its row may panic' engine/engine.go 'if r := recover(); r != nil {
			holds' 'if r := any(nil); r != nil {
			holds'
mutate 'what cannot be looked up is left out' engine/plan.go 'err != nil || c.scan' 'err != nil'
# Roles and domains.
mutate 'nine hops' table/graph.go 'const DefaultDepth = 10' 'const DefaultDepth = 9'
mutate 'eleven hops' table/graph.go 'const DefaultDepth = 10' 'const DefaultDepth = 11'
mutate 'a domain of the policy is taken for that of the request' engine/plan.go '	return -1, false
}' '	return 1, true
}'
mutate 'a group that no line names is none' engine/engine.go 'return slices.Contains(ev.groups(kind, names[0]), names[1]), nil' 'return slices.Contains(ev.groups(kind, names[0]), ""), nil'
mutate 'domains do not count' engine/engine.go 'if ev.engine.Model.Roles[kind] == 3 {' 'if false {'
# Candidates.
mutate 'no candidate is an empty policy' engine/engine.go '!e.Model.AsksPolicy || e.Rows.Len() == 0' '!e.Model.AsksPolicy || e.Rows.Len() == 0 || e.Plan.Scan == "" && func() bool { rows, all := ev.Candidates(); return !all && len(rows) == 0 }()'
mutate 'where every row matches, the first is enough' engine/plan.go 'ev.rows = append(ev.rows, plan.marks...)' 'ev.rows = append(ev.rows, 0)'
mutate 'where every row matches, no deny counts' engine/plan.go 'append(ev.rows, plan.marks...)' 'append(ev.rows, plan.marks[:min(1, len(plan.marks))]...)'
mutate 'candidates in any order' engine/plan.go 'slices.Sort(ev.rows)' '_ = 0'
mutate 'a range ends one too early' engine/index.go 'return from, to + rest' 'return from, to + rest - 1'
mutate 'a range begins one too late' engine/index.go 'from, _ = slices.BinarySearch(keys, key)' 'from, _ = slices.BinarySearch(keys, key); from = min(from+1, len(keys))'
mutate 'rows of a value are searched from the wrong place' engine/index.go 'have, lo = have[to:], lo+uint32(to)' 'have = have[to:]'
TESTS='EqualRange' mutate 'the last key has no end' engine/index.go 'keys[to+i] > key' 'keys[to+i] >= key+1'
mutate 'a key that nobody shares is the only one' engine/index.go 's.keys = append(s.keys, k)' 's.keys = append(s.keys[:0], k)'

echo "$((mutations - survived)) of $mutations mistakes are noticed"
exit $((survived > 0))
