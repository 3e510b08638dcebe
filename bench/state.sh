#!/usr/bin/env bash
# What limits and links cost beside none. Each variant has a service and an nginx (one
# worker) of its own, which serve the same 1 KiB file:
#
#   none      a user and groups that nginx sets
#   memory    the same, with limits of requests per address (before anybody is asked),
#             subject and group, which the service counts
#   redis     the same, with limits per subject and group, which Redis counts: one round
#             trip a decision, over a unix socket
#   early     as redis, with the one per address too: two round trips
#   fsync     as redis, in a Redis that keeps what it acknowledges (appendfsync always), as
#             counted links need it
#   link      a link in the place of a user
#
# wrk (1 thread, 32 connections) asks one after the other, ROUNDS times for
# DURATION seconds each, so that a busy moment of the machine hits all of them.
# Medians of the rates and of each round's ratios are printed, and the CPU time a
# request of nginx, of the service and of Redis, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/state.sh
#
# Needs nginx, redis-server, curl, wrk and Go; a machine with nothing else to do.
# With ROUNDS=0 it only checks that all of them serve the file.
set -euo pipefail

rounds=${ROUNDS:-9} duration=${DURATION:-3}
variants=(none memory redis early fsync link)

PORT=${PORT:-19280}
source "$(dirname "$0")/common.sh"

(cd "$repo" && go build -o "$dir/securefiles" .)
chmod 755 "$dir" # as root, nginx's workers run as another user
mkdir -p "$dir/files/project"
head -c 1024 /dev/zero | tr '\0' x >"$dir/files/project/1k.bin"
printf 'p, alice, /project/**, read, allow\np, alice, /project/**, share, allow\n' >"$dir/policy.csv"
openssl rand -hex 32 >"$dir/token"

declare -A redis_pid
for r in plain kept; do
  mkdir "$dir/redis-$r"
  keep=(--appendonly no)
  if [[ $r == kept ]]; then keep=(--appendonly yes --appendfsync always); fi
  redis-server --port 0 --unixsocket "$dir/$r.sock" --dir "$dir/redis-$r" --save "" "${keep[@]}" >"$dir/redis-$r.log" &
  pids+=($!) redis_pid[$r]=$!
done

address='{name: addresses, per: address, requests: 1000000000/1m}'
late='{name: users, per: subject, requests: 1000000000/1m}, {name: groups, of: ["@staff"], per: group, requests: 1000000000/1m}'
declare -A extra=(
  [memory]="limits: [$address, $late]"
  [redis]="{limits: [$late], state: {redis: {address: ['unix:$dir/plain.sock'], prefix: redis}}}"
  [early]="{limits: [$address, $late], state: {redis: {address: ['unix:$dir/plain.sock'], prefix: early}}}"
  [fsync]="{limits: [$late], state: {redis: {address: ['unix:$dir/kept.sock']}}}"
  [link]="links: {keys_file: link-keys.json}"
)
declare -A asks=([redis]=plain [early]=plain [fsync]=kept) # which Redis
declare -A url service_pid nginx
declare -A user=([link]="")

for v in "${variants[@]}"; do
  free && service=$port
  free && admin=$port
  free
  more=${extra[$v]:-}
  if [[ $more == {* ]]; then # a flow mapping as lines of the file
    more=${more#\{}; more=${more%\}}; more=${more/, state:/$'\n'state:}
  fi
  cat >"$dir/$v.yaml" <<YAML
listen: 127.0.0.1:$service
admin: 127.0.0.1:$admin
downloads: [{name: main, url: /downloads/, internal: /protected/, root: $dir/files}]
policy: {file: policy.csv}
identity: [{header: X-Remote-User, groups_header: X-Remote-Groups, nginx_value: \$bench_user, nginx_groups_value: \$bench_groups}]
$more
YAML
  url[$v]=http://127.0.0.1:$port/downloads/project/1k.bin
  if [[ $v == link ]]; then
    "$dir/securefiles" link key new --config "$dir/$v.yaml" >/dev/null
    made=$("$dir/securefiles" link create /project/1k.bin --as alice --config "$dir/$v.yaml" 2>/dev/null)
    url[$v]+="?${made#*\?}"
  fi
  variables="map \"\" \$bench_user { default \"${user[$v]-alice}\"; } map \"\" \$bench_groups { default \"${user[$v]-staff, sales, offline_access}\"; }"
  mkdir -p "$dir/nginx-$v/run" "$dir/nginx-$v/logs"
  "$dir/securefiles" nginx --complete --config "$dir/$v.yaml" |
    sed -e 's|^worker_processes.*|worker_processes 1;|' -e 's|access_log .*|access_log off;|' \
      -e "s|listen 127.0.0.1:8080|listen 127.0.0.1:$port|" -e "s|^http {|http { $variables|" >"$dir/$v.conf"
  "$dir/securefiles" serve --config "$dir/$v.yaml" 2>"$dir/$v.log" &
  pids+=($!) service_pid[$v]=$!
  nginx -p "$dir/nginx-$v" -e logs/error.log -c "$dir/$v.conf" -g 'daemon off;' 2>/dev/null &
  pids+=($!) nginx[$v]=$!
done

for v in "${variants[@]}"; do
  for ((deadline = SECONDS + 60; ; )); do
    size=$(curl -sf "${url[$v]}" | wc -c) || true
    ((size == 1024)) && break
    ((SECONDS < deadline)) || { echo "$v does not serve the file: $(cat "$dir/$v.log" "$dir/nginx-$v"/logs/*)" >&2; exit 1; }
    sleep 0.1
  done
done

((rounds)) || { echo "all of them serve the file"; exit 0; }

# rate VARIANT SECONDS prints requests a second.
rate() {
  local out
  out=$(wrk -t1 -c32 -d"$2s" "${url[$1]}")
  if grep -q 'Non-2xx\|Socket errors' <<<"$out"; then
    echo "$1: $out" >&2
    return 1
  fi
  awk '/^Requests\/sec/ { print $2 }' <<<"$out"
}
# cpu PID prints the CPU time that it used, in microseconds (proc(5)).
cpu() { sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / hz }'; }
worker() { cut -d' ' -f1 "/proc/${nginx[$1]}/task/${nginx[$1]}/children"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

for v in "${variants[@]}"; do rate "$v" 1 >/dev/null; done # warm
for ((round = 1; round <= rounds; round++)); do
  line="round $round:"
  for v in "${variants[@]}"; do
    r=0 r0=0
    n=$(cpu "$(worker "$v")") a=$(cpu "${service_pid[$v]}")
    if [[ -v asks[$v] ]]; then r0=$(cpu "${redis_pid[${asks[$v]}]}"); fi
    rate=$(rate "$v" "$duration")
    if [[ -v asks[$v] ]]; then r=$(cpu "${redis_pid[${asks[$v]}]}"); fi
    echo "$rate" >>"$dir/$v.rates"
    requests=$(awk "BEGIN { print $rate * $duration }")
    awk "BEGIN { print ($(cpu "$(worker "$v")") - $n) / $requests }" >>"$dir/$v.nginx"
    awk "BEGIN { print ($(cpu "${service_pid[$v]}") - $a) / $requests }" >>"$dir/$v.service"
    awk "BEGIN { print ($r - $r0) / $requests }" >>"$dir/$v.redis"
    line+=" $v $rate"
  done
  echo "$line"
done

echo
echo "$(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(redis-server --version | grep -o 'v=[^ ]*'), $(go version | cut -d' ' -f3), $rounds rounds of ${duration}s"
for v in "${variants[@]}"; do
  printf '%-7s %6.0f requests/s, / none %.2f   CPU a request: nginx %5.1f µs, service %5.1f µs, Redis %5.1f µs\n' \
    "$v" "$(median <"$dir/$v.rates")" "$(paste "$dir/$v.rates" "$dir/none.rates" | awk '{ print $1 / $2 }' | median)" \
    "$(median <"$dir/$v.nginx")" "$(median <"$dir/$v.service")" "$(median <"$dir/$v.redis")"
done
cpus() { paste "$dir/$1.nginx" "$dir/$1.service" "$dir/$1.redis" | awk '{ print $1 + $2 + $3 }' | median; }
for v in memory redis early fsync link; do
  awk "BEGIN { printf \"%-7s / none %.2f   by CPU time, of nginx, the service and Redis\n\", \"$v\", $(cpus none) / $(cpus "$v") }"
done
echo "targets: memory 0.85, redis 0.60, link 0.80"
