#!/usr/bin/env bash
# Does HTTP/2 to the client change what a guarded download costs? The same file over TLS, by
# HTTP/1.1 (64 connections, one request at a time on each) and HTTP/2 (8 connections, 8 streams
# on each), static and guarded (HTTP Basic, the starter policy). See lib.sh; needs h2load and strace too.
#
#   ROUNDS=9 DURATION=3 ./bench/http2.sh
set -euo pipefail

rounds=5 duration=2
PORT=${PORT:-19980}
source "$(dirname "$0")/lib.sh"

build public
variants=(static-h1 static-h2 service-h1 service-h2)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 -subj /CN=localhost 2>/dev/null
echo insecure >"$dir/.curlrc"
export CURL_HOME=$dir # the certificate is our own

# encrypted VARIANT starts nginx, for both protocols: which one is the client's choice.
encrypted() {
  sed -i "s|listen 127.0.0.1:8080;|listen 127.0.0.1:8080 ssl http2; ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem; keepalive_requests 1000000000;|" "$dir/$1.conf"
  front "$1" /downloads/public/1k.bin
  local h
  for h in h1 h2; do
    nginx[$1-$h]=${nginx[$1]} url[$1-$h]=https://${url[$1]#http://} asked[$1-$h]=${asked[$1]:-}
    ln -s "nginx-$1" "$dir/nginx-$1-$h"
  done
}
starter "$dir/conf"
serve service "$dir/conf/securefiles.yaml"
printed "$dir/conf/securefiles.yaml" >"$dir/service.conf"
encrypted service
{
  sed '/# securefiles, for http/,$d' "$dir/service.conf"
  echo "access_log off; server { listen 127.0.0.1:8080; location /downloads/ { alias $dir/files/; } } }"
} >"$dir/static.conf"
encrypted static

# rate VARIANT SECONDS prints requests a second.
rate() {
  local out how=(-c 8 -m 8)
  if [[ $1 == *-h1 ]]; then how=(--h1 -c 64 -m 1); fi
  out=$(h2load "${how[@]}" -D "$2" -H "$authorization" "${url[$1]}")
  if ! grep -q ' 0 3xx, 0 4xx, 0 5xx' <<<"$out" || ! grep -q " 0 errored" <<<"$out"; then
    echo "$1: $out" >&2
    return 1
  fi
  sed -n 's|^finished in .*, \([0-9.]*\) req/s.*|\1|p' <<<"$out"
}

all_serve
measure

# calls VARIANT prints nginx's system calls a request.
calls() {
  local pid tracer r
  pid=$(worker "$1")
  strace -f -c -qq -o "$dir/calls" -p "$pid" 2>/dev/null &
  tracer=$!
  while grep -q '^TracerPid:\s0$' "/proc/$pid/status"; do sleep 0.05; done
  r=$(rate "$1" 2)
  kill "$tracer"
  wait "$tracer" || true
  awk -v n="$(awk "BEGIN { print $r * 2 }")" '$NF == "total" { printf "%.1f", $4 / n }' "$dir/calls"
}
echo
echo "| | requests/s | CPU a request: nginx | service | nginx's system calls a request |"
echo "|---|---|---|---|---|"
for v in "${variants[@]}"; do
  # shellcheck disable=SC2016 # Markdown
  printf '| `%s` | %.0f | %.1f µs | %.1f µs | %s |\n' "$v" "$(of "$v" rates)" "$(of "$v" nginx)" "$(of "$v" asked)" "$(calls "$v")"
done
echo
for way in static service; do
  echo "h2 beside h1, $way: $(ratio "$way-h2" "$way-h1") requests/s, $(paste "$dir/$way-h2.nginx" "$dir/$way-h1.nginx" | awk '{ print $1 / $2 }' | median) of nginx's CPU time, medians of the rounds' ratios"
done
for h in h1 h2; do echo "service beside static, $h: $(ratio "service-$h" "static-$h") requests/s"; done
