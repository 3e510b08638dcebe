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
  local name=$1 file=$2 output
  mutations=$((mutations + 1))
  cp "policy/$file" "$dir/policy/$file"
  if ! FROM=$3 TO=$4 perl -0pi -e '$n = s/\Q$ENV{FROM}\E/$ENV{TO}/; die "not there\n" unless $n' "$dir/policy/$file"; then
    echo "OUTDATED  $name: the text is not in $file" && survived=$((survived + 1))
    return
  fi
  if output=$(cd "$dir" && go test ./policy -run "${TESTS:-PruningTraps|TrickyPatterns|SayEnough}" 2>&1 &&
    go test ./policy -run 'StockDecides|Anchor|PlainKeys|CasbinExamples' -rapid.checks=300 -rapid.nofailfile 2>&1); then
    echo "SURVIVED  $name" && survived=$((survived + 1))
  elif grep -q 'build failed' <<<"$output"; then
    echo "OUTDATED  $name: does not compile" && survived=$((survived + 1))
    grep -m3 '^policy/' <<<"$output"
  else
    echo "caught    $name: $(grep -oE -- '--- FAIL: [^ ]+' <<<"$output" | sed 's/--- FAIL: //; s/TestPruningTraps.//' | grep -v '^TestPruningTraps$' | sort -u | head -3 | paste -sd, -)"
  fi
  cp "policy/$file" "$dir/policy/$file"
}

# What a pattern must hold.
mutate 'glob: the slash before the wildcard is kept' anchor.go 'prefix := strings.TrimSuffix(pattern[:first], "/")' 'prefix := pattern[:first]'
mutate 'glob: the slash of a suffix is kept' anchor.go 'suffix = strings.TrimPrefix(suffix, "/")' 'suffix = suffix + ""'
mutate 'an alternation does not un-anchor' anchor.go "case c == '|':" "case c == 1:"
mutate 'a quantifier leaves the character before it' anchor.go 'strings.IndexByte(`*?+{(\`, pattern[end]) >= 0' 'strings.IndexByte(`*?+{(\`, pattern[end]) > 9'
mutate 'a flag group leaves the character before it' anchor.go '`*?+{(\`, pattern[end]' '`*?+{`, pattern[end]'
mutate 'slash and star become slash, dot and star everywhere' anchor.go '!slashStar || pattern[end]' 'pattern[end]'
mutate 'bytes that are not UTF-8 count' anchor.go 'if r == utf8.RuneError {' 'if r == 1 {'
mutate 'regexMatch is anchored without a caret' anchor.go 'if form.begins {' 'if true {'
mutate 'regexMatch is anchored without a dollar' anchor.go 'form.ends && !opaque' '!opaque'
mutate 'a backslash or a flag leaves a suffix as it is' anchor.go 'form.ends && !opaque' 'form.ends'
mutate 'a dot is a dot' anchor.go 'strings.ReplaceAll(s, ".", string([]byte{anyRune}))' 's'
mutate 'a name is part of a suffix' anchor.go 'if lastName >= 0 {' 'if false {'
mutate 'keyMatch5 keeps the query' plan.go 'if c.pattern.function == "keyMatch5"' 'if c.pattern.function == "never"'
# The normal form.
mutate 'negation is forgotten' matcher.go '{c.atom, negate}' '{c.atom, false}'
mutate 'a negated && stays one' matcher.go '(c.op == opOr) != negate' 'c.op == opOr'
mutate '! binds to all that follows' matcher.go 'ors, ok := p.split(i, j, "||")' 'if p.tokens[i].Kind == govaluate.PREFIX && j-i > 2 { return &term{op: opNot, kids: []*term{p.parse(i+1, j)}} }
	ors, ok := p.split(i, j, "||")'
mutate 'a ternary is taken apart' matcher.go 't.Kind == govaluate.TERNARY || t.Kind' 't.Kind'
mutate 'a negated part prunes' plan.go 'if l.negated {' 'if false {'
mutate 'a guard holds the wrong way round' plan.go 'holds == g.negated' 'holds != g.negated'
TESTS='ErrorsDeny' mutate 'a guard that fails is no error' plan.go 'err != nil && i < c.early' 'err != nil && i < 0'
TESTS='ErrorsDeny' mutate 'a guard that fails alone is no error' plan.go '; c.always {' '; false {'
TESTS='ErrorsDeny' mutate 'behind a guard that fails, others count' plan.go 'case err != nil:
			return true, nil
		case' 'case'
TESTS='ErrorsDeny' mutate 'an empty policy has no need of rules' engine.go 'if ev.engine.def.evaluates {' 'if false {'
TESTS='ErrorsDeny' mutate 'rows that no lookup finds need no address' plan.go 'if c.address && ' 'if false && '
mutate 'what is asked before its row may panic' engine.go 'if r := recover(); r != nil {
			holds' 'if r := any(nil); r != nil {
			holds'
mutate 'what cannot be looked up is left out' plan.go 'err != nil || c.scan' 'err != nil'
# Roles and domains.
mutate 'nine hops' roles.go 'const defaultRoleDepth = 10' 'const defaultRoleDepth = 9'
mutate 'eleven hops' roles.go 'const defaultRoleDepth = 10' 'const defaultRoleDepth = 11'
mutate 'a domain of the policy is taken for that of the request' plan.go '	return -1, false
}' '	return 1, true
}'
mutate 'a group that no line names is none' engine.go 'return slices.Contains(ev.groups(definition, names[0]), names[1]), nil' 'return slices.Contains(ev.groups(definition, names[0]), ""), nil'
mutate 'domains do not count' engine.go 'if ev.engine.def.roles[definition] == 3 {' 'if false {'
# Candidates.
mutate 'no candidate is an empty policy' engine.go '!e.asksPolicy || e.rules.len() == 0' '!e.asksPolicy || e.rules.len() == 0 || e.plan.scan == "" && func() bool { rows, all := ev.candidates(); return !all && len(rows) == 0 }()'
mutate 'where every row matches, the first is enough' plan.go 'ev.rows = append(ev.rows, plan.marks...)' 'ev.rows = append(ev.rows, 0)'
mutate 'where every row matches, no deny counts' plan.go 'append(ev.rows, plan.marks...)' 'append(ev.rows, plan.marks[:min(1, len(plan.marks))]...)'
mutate 'candidates in any order' plan.go 'slices.Sort(ev.rows)' '_ = 0'
mutate 'a range ends one too early' index.go 'return from, to + rest' 'return from, to + rest - 1'
mutate 'a range begins one too late' index.go 'from, _ = slices.BinarySearch(keys, key)' 'from, _ = slices.BinarySearch(keys, key); from = min(from+1, len(keys))'
mutate 'rows of a value are searched from the wrong place' index.go 'have, lo = have[to:], lo+uint32(to)' 'have = have[to:]'
TESTS='EqualRange' mutate 'the last key has no end' index.go 'keys[to+i] > key' 'keys[to+i] >= key+1'
mutate 'a key that nobody shares is the only one' index.go 's.keys = append(s.keys, k)' 's.keys = append(s.keys[:0], k)'

echo "$((mutations - survived)) of $mutations mistakes are noticed"
exit $((survived > 0))
