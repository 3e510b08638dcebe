#!/usr/bin/env bash
# What a guarded download costs, end to end, and what of that is the service's
# own:
#
#   static    without any question
#   return    auth_request to `return 204` inside nginx
#   bare      the snippet, asking a net/http handler that always allows
#   service   the snippet, asking securefiles, with the starter policy
#   million   the same with 1,000,000 policy lines and 310,000 role links more
#   kept      service, with nginx.open_file_cache
#   static-kept  static, with the same open_file_cache
#   base      service, of another binary and its own snippet, where BASE names one
#
# Medians of the rates and of each round's ratios are printed, and the CPU
# time a request of nginx and of what it asks, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/endtoend.sh
#   BASE=../before/securefiles ./bench/endtoend.sh
set -euo pipefail

rounds=7 duration=4
variants=(static return bare service million kept static-kept)
if [[ -n ${BASE:-} ]]; then variants+=(base); fi

PORT=${PORT:-19080}
source "$(dirname "$0")/lib.sh"

build public
(cd "$repo" && go build -o "$dir/handler" ./bench/bare)
starter "$dir/million"
awk -v lines="${POLICY_LINES:-1000000}" 'BEGIN {
  for (i = 0; i < lines; i++) printf "p, role%d, main, /team%d/project%d/**, read, allow\n", i % 10000, i % 1000, i / 1000
  for (i = 1; i < 10000; i++) printf "g, role%d, role%d\n", i, (i - 1) / 10
  for (i = 0; i < lines / 10; i++) for (k = 0; k < 3; k++) printf "g, user%d, role%d\n", i, (i * 7 + k * 3001) % 10000
  for (k = 0; k < 3; k++) printf "g, alice, role%d\n", k * 3001
}' >>"$dir/million/policy.csv"
serve million "$dir/million/securefiles.yaml"
printed "$dir/million/securefiles.yaml" >"$dir/million.conf"
starter "$dir/service"
serve service "$dir/service/securefiles.yaml"
printed "$dir/service/securefiles.yaml" >"$dir/service.conf"

starter "$dir/kept"
echo 'nginx: {open_file_cache: 1000}' >>"$dir/kept/securefiles.yaml"
serve kept "$dir/kept/securefiles.yaml"
printed "$dir/kept/securefiles.yaml" >"$dir/kept.conf"
if [[ -n ${BASE:-} ]]; then
  binary=$BASE
  starter "$dir/base"
  serve base "$dir/base/securefiles.yaml"
  printed "$dir/base/securefiles.yaml" >"$dir/base.conf"
  unset binary
fi
free
"$dir/handler" "127.0.0.1:$port" /protected/public/1k.bin 2>"$dir/bare.log" &
pids+=($!) asked[bare]=$!
sed "s|server 127.0.0.1:[0-9]*;|server 127.0.0.1:$port;|" "$dir/service.conf" >"$dir/bare.conf"
rest=$(sed -e '/# securefiles, for http/,/access_log/d' -e '/# securefiles, for server/,$d' "$dir/service.conf")
echo "$rest access_log off; location /downloads/ { alias $dir/files/; } } }" >"$dir/static.conf"
echo "$rest access_log off; open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s; location /downloads/ { alias $dir/files/; } } }" >"$dir/static-kept.conf"
echo "$rest access_log off; location /downloads/ { auth_request /ask; alias $dir/files/; } location = /ask { internal; return 204; } } }" >"$dir/return.conf"
for v in "${variants[@]}"; do front "$v" /downloads/public/1k.bin; done

all_serve
measure
for v in "${variants[@]}"; do
  printf '%-11s %8.0f requests/s   CPU a request: nginx %5.1f µs, what it asks %5.1f µs\n' "$v" "$(of "$v" rates)" "$(of "$v" nginx)" "$(of "$v" asked)"
done
printf 'return  / static  %.2f\n' "$(ratio return static)"
printf 'service / static  %.2f   (target: at least 0.35)\n' "$(ratio service static)"
printf 'service / bare    %.2f   (target: at least 0.90)\n' "$(ratio service bare)"
printf 'million / service %.2f   (target: at least 0.90)\n' "$(ratio million service)"
printf 'kept / static-kept %.2f   (target: at least 0.45)\n' "$(ratio kept static-kept)"
if [[ -n ${BASE:-} ]]; then
  printf 'service / base    %.2f, kept / base %.2f (target: at least 1.20)\n' "$(ratio service base)" "$(ratio kept base)"
  printf 'service / base    %s, kept / base %s by CPU time\n' "$(by_cpu service base)" "$(by_cpu kept base)"
fi
printf 'service / bare    %s   by CPU time, nginx and what it asks\n' "$(by_cpu service bare)"
printf 'million / service %s   by CPU time\n' "$(by_cpu million service)"
