#!/usr/bin/env bash
# Fails, and says what to do, unless there is a Go that go.mod asks for. A Go from 1.21
# on fetches the version that it lacks, where it may.
set -euo pipefail

need=$(sed -n 's/^go //p' go.mod)
fail() {
  printf '%s\nsecurefiles needs Go %s or later: https://go.dev/dl/ (Debian 12 has 1.19: unpack the archive, and put its bin first in PATH)\n' "$1" "$need" >&2
  exit 1
}
older() { [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

command -v go >/dev/null || fail 'there is no go in PATH'
have=$(GOTOOLCHAIN=local go env GOVERSION)
have=${have#go}
have=${have%% *}
[[ $have =~ ^[0-9] ]] || exit 0 # built from Go's own sources
if older "$have" "$need"; then
  fetched=
  if ! older "$have" 1.21; then fetched=$(go env GOVERSION) || true; fi
  fetched=${fetched#go}
  if older "${fetched:-$have}" "$need"; then fail "$(command -v go) is $have"; fi
fi
