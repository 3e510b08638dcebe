#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that hold the given commands, if any
# command is missing: install.sh nginx curl …
# Five names are no commands: cc is a C compiler that finds its headers,
# certificates are what Go needs to fetch modules, django and pyjwt are modules of python3,
# postgresql is a server whose commands are in no PATH.
# A name with a question mark behind it is left out where there is no package:
# Ubuntu's chromium is another kind of package.
set -euo pipefail

declare -A package=(
  [nginx]=nginx [curl]=curl [wrk]=wrk [htpasswd]=apache2-utils [openssl]=openssl [python3]=python3 [strace]=strace [h2load]=nghttp2-client [gunicorn]=gunicorn [shellcheck]=shellcheck
  [debootstrap]=debootstrap [systemd-nspawn]=systemd-container [lintian]=lintian [ip]=iproute2
  [git]=git [zsh]=zsh [fish]=fish [xmllint]=libxml2-utils
  [cc]="gcc libc6-dev"    # for the race detector
  [certificates]=ca-certificates
  [django]=python3-django # for Debian's own python3
  [pyjwt]="python3-jwt python3-cryptography"
  [chromium]=chromium
  [postgresql]=postgresql [promtool]=prometheus [redis-server]=redis-server
  [apache2]="apache2 libapache2-mod-xsendfile" [lighttpd]="lighttpd lighttpd-modules-lua" [caddy]=caddy
  [rsyslogd]="rsyslog rsyslog-gnutls"
  [mkfs.ext4]=e2fsprogs [losetup]=mount
)
have() {
  case $1 in
    cc) echo '#include <stdlib.h>' | ${CC:-gcc} -E - &>/dev/null ;;
    certificates) [[ -n ${SSL_CERT_FILE:-}${SSL_CERT_DIR:-} ]] || compgen -G '/etc/ssl/certs/*' >/dev/null || compgen -G '/etc/ssl/*.pem' >/dev/null || compgen -G '/etc/pki/tls/certs/*' >/dev/null ;;
    pyjwt) /usr/bin/python3 -c 'import jwt, cryptography' 2>/dev/null ;;
    django) /usr/bin/python3 -c 'import django' 2>/dev/null ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
    rsyslogd) command -v rsyslogd >/dev/null && compgen -G '/usr/lib/*/rsyslog/lmnsd_gtls.so' >/dev/null ;;
    apache2) command -v apache2 >/dev/null && [[ -e /usr/lib/apache2/modules/mod_xsendfile.so ]] ;;
    lighttpd) command -v lighttpd >/dev/null && [[ -e /usr/lib/lighttpd/mod_magnet.so ]] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}
missing=()
optional=()
for command in "$@"; do
  name=${command%\?}
  packages=${package[$name]:?no package is known for $name}
  if have "$name"; then continue; fi
  if [[ $command == *\? ]]; then
    optional+=("$packages")
  else
    # shellcheck disable=SC2206 # cc, rsyslogd and web servers are two packages
    missing+=($packages)
  fi
done
((${#missing[@]} + ${#optional[@]})) || exit 0

echo "installing: ${missing[*]} ${optional[*]}" >&2
command -v apt-get >/dev/null || {
  echo "apt-get is not here: install ${missing[*]} yourself, then run this again" >&2
  exit 1
}
sudo=()
if ((EUID != 0)); then sudo=(sudo); fi
"${sudo[@]}" apt-get update -qq >&2
for name in "${optional[@]}"; do
  if [[ $(. /etc/os-release && echo "$ID") == debian ]]; then missing+=("$name"); else echo "left out: $name" >&2; fi
done
((${#missing[@]})) || exit 0
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2

# Packages start services of their own, which nobody asked for.
if [[ -d /run/systemd/system ]]; then
  for package in "${missing[@]}"; do
    case $package in
      apache2 | caddy | lighttpd | nginx | postgresql | prometheus | redis-server) "${sudo[@]}" systemctl disable --now "$package" >&2 || true ;;
    esac
  done
fi
