#!/usr/bin/env bash
# Writes what goes to /usr/share/doc/securefiles into a directory: README and documents as
# they lie in the source, with the examples to which they send. What lies elsewhere in a
# package (the changelog) is linked there, and what is in none is named without a link:
#
#	packaging/doc.sh DIR deb|rpm
set -euo pipefail
umask 022

dir=$(realpath -m "${1:?the directory to write to}")
licence=LICENSE
if [[ ${2:?deb or rpm} == deb ]]; then licence=copyright; fi
cd "$(dirname "$0")/.."

mkdir -p "$dir/docs"
cp README.md SECURITY.md nginx.conf.example "$dir"
cp docs/*.md docs/*.svg "$dir/docs"
# But for the demo, which takes the source, and what /etc/securefiles begins with.
find examples -mindepth 2 -type f -name '*.*' -not -path 'examples/demo/*' -not -path 'examples/starter/*' -not -path '*/__pycache__/*' | while read -r example; do
  mkdir -p "$dir/$(dirname "$example")"
  cp "$example" "$dir/$example"
done
gzip -9nc CHANGELOG.md >"$dir/changelog.gz"

for page in "$dir"/*.md "$dir"/docs/*.md; do
  sed -i -e 's|](\(\.\./\)\?CHANGELOG\.md)|](\1changelog.gz)|g' -e "s|](\(\.\./\)\?LICENSE)|](\1$licence)|g" "$page"
  for target in $(grep -o ']([^)#: ]*[)#]' "$page" | sed 's/^](//; s/.$//' | sort -u); do
    if [[ -n $target && ${target##*/} != "$licence" && ! -e $(dirname "$page")/$target ]]; then # the licence comes by itself
      sed -i -E "s|\\[([^]]*)\\]\\(${target//./\\.}(#[^)]*)?\\)|\\1|g" "$page"
    fi
  done
done
find "$dir" -type f -exec chmod 644 {} +
