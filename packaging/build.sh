#!/usr/bin/env bash
# Builds deb, rpm, an OCI image and a list of what they hold (CycloneDX) for amd64 and
# arm64, and the Helm chart, into a directory:
#
#	VERSION=1.2.3 packaging/build.sh dist
#
# The same tree gives the same bytes, wherever and whenever it is built. Times in the
# packages are SOURCE_DATE_EPOCH, or else that of the last commit. COMMIT is what
# `securefiles version` tells; FORMATS="deb" and ARCHES="amd64" build less. MAINTAINER
# is who packages it.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

out=$(realpath -m "${1:?the directory to write to}")
cd "$(dirname "$0")/.."
export VERSION=${VERSION:-$(scripts/version.sh)}
commit=${COMMIT-$(git rev-parse HEAD 2>/dev/null || true)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || true)}
: "${SOURCE_DATE_EPOCH:?this is no repository of git: set it to the time of the release, in seconds since 1970}"
# Nobody's, so that mail goes to nobody else: who publishes packages sets an own one.
export MAINTAINER=${MAINTAINER:-securefiles maintainers <maintainers@securefiles.invalid>}
formats=" ${FORMATS:-deb rpm image sbom chart} "
export CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'
ldflags="-s -w -buildid= -X securefiles/internal/cli.version=$VERSION -X securefiles/internal/cli.commit=$commit"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work"/common/{man,completion,etc,nginx,doc}
tool() { go build -modfile=packaging/tools.mod -o "$work/${1##*/}" "$1"; }

if [[ $formats == *' chart '* ]]; then
  mkdir "$work/chart"
  cp -r packaging/helm/securefiles "$work/chart"
  sed -i -e "s/^version: .*/version: \"$VERSION\"/" -e "s/^appVersion: .*/appVersion: \"$VERSION\"/" -e '/^# Both are the release/d' "$work/chart/securefiles/Chart.yaml"
  tar -C "$work/chart" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - securefiles |
    gzip -9n >"$out/securefiles-$VERSION.tgz"
fi

# What is the same for all of them.
common=$work/common
go build -ldflags "$ldflags" -o "$work/native" .
go run -ldflags "$ldflags" ./packaging/man "$common/man"
gzip -9n "$common"/man/*
for shell in bash fish; do "$work/native" completion "$shell" >"$common/completion/$shell"; done
{ # a file of fpath: zsh runs it when it first completes, as the function that it then defines
  echo '#compdef securefiles'
  "$work/native" completion zsh
  echo '_bash_complete -o default -F _securefiles'
} >"$common/completion/zsh"
cp examples/starter/* "$common/etc"
cp packaging/nginx/* "$common/nginx"
"$work/native" nginx --http --config examples/starter/securefiles.yaml >"$common/nginx/http.conf"
"$work/native" nginx --config examples/starter/securefiles.yaml >"$common/nginx/server.conf"
cp packaging/tmpfiles.conf "$common"

# licences prints those of what a binary holds, Go's own first.
licences() {
  printf '== Go %s\n\n' "$(go env GOVERSION)"
  cat "$(go env GOROOT)/LICENSE"
  go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' . | sort -u |
    while read -r path version dir; do
      find "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort |
        while read -r file; do
          printf '\n== %s %s %s\n\n' "$path" "$version" "$(basename "$file")"
          cat "$file"
        done
    done
}

copyright() {
  cat <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: securefiles
Comment: The licences of the Go modules that the binary holds are in
 third-party-licences.gz.

Files: *
Copyright: 2026, the securefiles authors
License: BSD-3-Clause
EOF
  sed '1,/^All rights reserved/d; /^$/d; s/^/ /; $!s/$/\n ./' LICENSE
}

case $formats in *' deb '* | *' rpm '*) tool github.com/goreleaser/nfpm/v2/cmd/nfpm ;; esac
case $formats in *' sbom '*) tool github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod ;; esac
case $formats in *' image '*) go build -C packaging/image -o "$work/image" . ;; esac

for arch in ${ARCHES:-amd64 arm64}; do
  export ARCH=$arch
  GOARCH=$arch go build -ldflags "$ldflags" -o "$work/securefiles.$arch" .
  GOARCH=$arch licences | gzip -9n >"$common/doc/third-party-licences.gz"
  if [[ $formats == *' sbom '* ]]; then
    "$work/cyclonedx-gomod" bin -json -std -noserial -notimestamp -version "$VERSION" -output "$out/securefiles_${VERSION}_$arch.cdx.json" "$work/securefiles.$arch" 2>"$work/sbom.log" ||
      { cat "$work/sbom.log" >&2; exit 1; }
  fi
  if [[ $formats == *' image '* ]]; then
    mkdir "$work/image.$arch"
    cp LICENSE "$common/doc/third-party-licences.gz" "$work/image.$arch"
    "$work/image" -arch "$arch" -version "$VERSION" -commit "$commit" -binary "$work/securefiles.$arch" -doc "$work/image.$arch" -o "$out/securefiles_${VERSION}_$arch.oci.tar"
  fi
  for format in deb rpm; do
    [[ $formats == *" $format "* ]] || continue
    stage=$work/$format.$arch
    cp -r "$common" "$stage"
    cp "$work/securefiles.$arch" "$stage/securefiles"
    cp -r "packaging/$format" "$stage/scripts"
    packaging/doc.sh "$stage/doc" "$format"
    mkdir "$stage/systemd"
    for unit in examples/systemd/*; do # /etc is for who copies them by hand
      sed -e '/^# \/etc\/systemd/d' -e 's|/usr/local/bin/|/usr/bin/|' "$unit" >"$stage/systemd/$(basename "$unit")"
    done
    nginx_user=www-data
    if [[ $format == deb ]]; then
      cp packaging/lintian-overrides "$stage"
      copyright >"$stage/doc/copyright"
      {
        printf 'securefiles (%s-1) unstable; urgency=medium\n\n  * What is new stands in changelog.gz.\n\n' "${VERSION/-/\~}"
        printf ' -- %s  %s\n' "$MAINTAINER" "$(date -R -d "@$SOURCE_DATE_EPOCH")"
      } | gzip -9n >"$stage/doc/changelog.Debian.gz"
    else
      nginx_user=nginx
      cp LICENSE "$stage/doc"
      sed -i "s/^SocketGroup=.*/SocketGroup=$nginx_user/" "$stage/systemd/securefiles.socket"
    fi
    sed -e "s/NGINX_USER/$nginx_user/" packaging/logrotate.conf >"$stage/logrotate"
    find "$stage/doc" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$stage" && "$work/nfpm" package --config "$OLDPWD/packaging/nfpm.yaml" --packager "$format" --target "$out/")
  done
done
