#!/usr/bin/env bash
# Prints the version of this tree, without a v: of a tagged commit its tag, 1.2.3;
# behind one 1.2.3+4.gb12910e; before the first tag 0.0.0+20261126212512.gb12910e,
# which sorts by time; with changes that no commit has, .dirty behind it. What is no
# repository of git says 0.0.0+unknown: give VERSION to make.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $(git rev-parse --show-prefix 2>/dev/null || echo none) == '' ]] || { echo 0.0.0+unknown; exit; }
dirty=$(git status --porcelain --untracked-files=no)
if described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null); then
  version=${described#v}
  if [[ $version =~ ^(.+)-([0-9]+)-(g[0-9a-f]+)$ ]]; then
    version=${BASH_REMATCH[1]}+${BASH_REMATCH[2]}.${BASH_REMATCH[3]}
  fi
else
  version=0.0.0+$(TZ=UTC0 git log -1 --format=%cd.g%h --date=format-local:%Y%m%d%H%M%S)
fi
echo "$version${dirty:+.dirty}"
