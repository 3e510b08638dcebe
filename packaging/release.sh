#!/usr/bin/env bash
# Makes a release in dist, of the tag that is checked out: v1.2.3, in a tree without
# changes, with its section in CHANGELOG.md. CONTRIBUTING.md has the steps around it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'release: %s\n' "$*" >&2; exit 1; }
tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null) || fail 'this commit has no tag: git tag -s v1.2.3'
[[ $tag =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || fail "$tag is no version such as v1.2.3 or v1.2.3-rc.1"
[[ -z $(git status --porcelain) ]] || fail 'the tree has changes that no commit has: git status'
grep -qE "^## ${tag#v}( |$)" CHANGELOG.md || fail "CHANGELOG.md has no section ## ${tag#v}: give Unreleased its version"
rm -rf dist
make --no-print-directory packages VERSION="${tag#v}" COMMIT="$(git rev-parse HEAD)"
[[ -z $(git status --porcelain) ]] || fail 'building has left something that git shows: git status'
echo "dist has $tag: sign dist/SHA256SUMS"
