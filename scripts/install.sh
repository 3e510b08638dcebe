#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that hold the given commands, if any
# command is missing: install.sh nginx curl …
set -euo pipefail

declare -A package=(
  [nginx]=nginx [curl]=curl [wrk]=wrk [htpasswd]=apache2-utils [openssl]=openssl [python3]=python3 [shellcheck]=shellcheck
  [git]=git [zsh]=zsh [fish]=fish
  [django]=python3-django # a module of Debian's own python3
)
have() {
  if [[ $1 == django ]]; then /usr/bin/python3 -c 'import django' 2>/dev/null; else command -v "$1" >/dev/null; fi
}
missing=()
had_nginx=$(command -v nginx || true)
for command in "$@"; do
  have "$command" || missing+=("${package[$command]:?no package is known for $command}")
done
((${#missing[@]})) || exit 0

echo "installing: ${missing[*]}" >&2
command -v apt-get >/dev/null || {
  echo "apt-get is not here: install ${missing[*]} yourself, then run this again" >&2
  exit 1
}
sudo=()
if ((EUID != 0)); then sudo=(sudo); fi
"${sudo[@]}" apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2

# The package starts an nginx of its own on port 80, which nobody asked for.
if [[ -z $had_nginx && -d /run/systemd/system && " ${missing[*]} " == *" nginx "* ]]; then
  "${sudo[@]}" systemctl disable --now nginx >&2 || true
fi
