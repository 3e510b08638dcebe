#!/usr/bin/env bash
# What limits and links cost beside none. Each variant has a service and an nginx (one
# worker) of its own, which serve the same 1 KiB file:
#
#   none      a user and groups that nginx sets
#   memory    the same, with a limit of requests per subject, which the service counts
#   redis     the same, which Redis counts: one round trip a decision, over a unix socket
#   link      a link in the place of a user
#   three     limits of requests per address (before anybody is asked), subject and group,
#             which the service counts
#   late      limits per subject and group, which Redis counts: one round trip
#   early     as late, with the one per address too: two round trips
#   fsync     as late, in a Redis that keeps what it acknowledges (appendfsync always), as
#             counted links need it
#
# Medians of the rates and of each round's ratios are printed, and the CPU time a
# request of nginx, of the service and of Redis, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/state.sh
#
# Needs redis-server beside what lib.sh does.
set -euo pipefail

rounds=9 duration=3
variants=(none memory redis link three late early fsync)

PORT=${PORT:-19280}
source "$(dirname "$0")/lib.sh"

build project
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
users='{name: users, per: subject, requests: 1000000000/1m}'
late="$users, {name: groups, of: ['@staff'], per: group, requests: 1000000000/1m}"
declare -A extra=(
  [memory]="limits: [$users]"
  [redis]="{limits: [$users], state: {redis: {address: ['unix:$dir/plain.sock'], prefix: redis}}}"
  [three]="limits: [$address, $late]"
  [late]="{limits: [$late], state: {redis: {address: ['unix:$dir/plain.sock'], prefix: late}}}"
  [early]="{limits: [$address, $late], state: {redis: {address: ['unix:$dir/plain.sock'], prefix: early}}}"
  [fsync]="{limits: [$late], state: {redis: {address: ['unix:$dir/kept.sock']}}}"
  [link]="links: {keys_file: link-keys.json}"
)
declare -A asks=([redis]=plain [late]=plain [early]=plain [fsync]=kept) # which Redis
declare -A user=([link]="")

for v in "${variants[@]}"; do
  free && service=$port
  free && admin=$port
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
  path=/downloads/project/1k.bin
  if [[ $v == link ]]; then
    "$dir/securefiles" link key new --config "$dir/$v.yaml" >/dev/null
    made=$("$dir/securefiles" link create /project/1k.bin --as alice --config "$dir/$v.yaml" 2>/dev/null)
    path+="?${made#*\?}"
  fi
  variables="map \"\" \$bench_user { default \"${user[$v]-alice}\"; } map \"\" \$bench_groups { default \"${user[$v]-staff, sales, offline_access}\"; }"
  serve "$v" "$dir/$v.yaml"
  printed "$dir/$v.yaml" | sed "s|^http {|http { $variables|" >"$dir/$v.conf"
  credentials[$v]="Accept: */*"
  if [[ -v asks[$v] ]]; then beside[$v]=${redis_pid[${asks[$v]}]}; fi
  front "$v" "$path"
done

all_serve
measure
redis-server --version | grep -o 'v=[^ ]*'
for v in "${variants[@]}"; do
  printf '%-7s %6.0f requests/s, / none %.2f   CPU a request: nginx %5.1f µs, service %5.1f µs, Redis %5.1f µs\n' \
    "$v" "$(of "$v" rates)" "$(ratio "$v" none)" "$(of "$v" nginx)" "$(of "$v" asked)" "$(of "$v" beside)"
done
for v in "${variants[@]:1}"; do
  printf '%-7s / none %s   by CPU time, of nginx, the service and Redis\n' "$v" "$(by_cpu "$v" none)"
done
echo "targets: memory 0.85, redis 0.60, link 0.80"
