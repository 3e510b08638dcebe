#!/usr/bin/env bash
# What the audit trail costs a guarded download, end to end: the same service and nginx,
# one worker each,
#
#   none      without a record
#   file      a record of each decision (audit.file)
#   fsync     the same, on the disk before the answer (durability: fsync)
#   all       decisions, nginx's log of deliveries followed, all of it chained
#
# wrk (1 thread, 32 connections) asks one after the other, ROUNDS times for DURATION
# seconds each, so that a busy moment of the machine hits all of them. Medians of the
# rates and of each round's ratios are printed, and the CPU time a request, which a busy
# machine changes less.
#
#   ROUNDS=15 DURATION=3 ./bench/audit.sh
#
# Needs nginx, curl, openssl, wrk and Go. With ROUNDS=0 it only checks that all serve.
set -euo pipefail

rounds=${ROUNDS:-9} duration=${DURATION:-3}
variants=(none file fsync all)

PORT=${PORT:-19380}
source "$(dirname "$0")/common.sh"

(cd "$repo" && go build -o "$dir/securefiles" .)
chmod 755 "$dir" # as root, nginx's workers run as another user
mkdir -p "$dir/files/public"
head -c 1024 /dev/zero | tr '\0' x >"$dir/files/public/1k.bin"

declare -A url asked nginx
for v in "${variants[@]}"; do
  mkdir "$dir/$v"
  "$dir/securefiles" init "$dir/$v" >/dev/null
  printf 'alice:%s\n' "$(openssl passwd -6 alice)" >>"$dir/$v/users.htpasswd"
  free && service=$port
  free && admin=$port
  sed -i -e "s|unix:/run/securefiles/auth.sock|127.0.0.1:$service|" -e "s|127.0.0.1:9181|127.0.0.1:$admin|" -e "s|/var/www/securefiles|$dir/files|" "$dir/$v/securefiles.yaml"
  case $v in
  file) echo "audit: {file: $dir/$v/audit.jsonl}" ;;
  fsync) echo "audit: {file: $dir/$v/audit.jsonl, durability: fsync}" ;;
  all)
    "$dir/securefiles" audit key bench 2>/dev/null >"$dir/$v/audit.key"
    echo "audit: {file: $dir/$v/audit.jsonl, chain: {key_file: audit.key}}"
    echo "nginx: {delivery_log: $dir/$v/delivery.log, access_log: 'off'}"
    ;;
  esac >>"$dir/$v/securefiles.yaml"
  "$dir/securefiles" serve --config "$dir/$v/securefiles.yaml" 2>"$dir/$v/service.log" &
  pids+=($!) asked[$v]=$!
  free
  mkdir -p "$dir/$v/nginx/run" "$dir/$v/nginx/logs"
  "$dir/securefiles" nginx --complete --config "$dir/$v/securefiles.yaml" |
    sed -e 's|^worker_processes.*|worker_processes 1;|' -e 's|access_log logs/.*|access_log off;|' -e "s|listen 127.0.0.1:8080|listen 127.0.0.1:$port|" >"$dir/$v/nginx.conf"
  url[$v]=http://127.0.0.1:$port/downloads/public/1k.bin
  nginx -p "$dir/$v/nginx" -e logs/error.log -c "$dir/$v/nginx.conf" -g 'daemon off;' 2>/dev/null &
  pids+=($!) nginx[$v]=$!
done

authorization="Authorization: Basic $(printf alice:alice | base64)"
for v in "${variants[@]}"; do
  for ((deadline = SECONDS + 60; ; )); do
    size=$(curl -s -H "$authorization" "${url[$v]}" | wc -c) || true
    ((size == 1024)) && break
    ((SECONDS < deadline)) || { echo "$v does not serve the file: $(tail -n 2 "$dir/$v"/*.log "$dir/$v"/nginx/logs/*)" >&2; exit 1; }
    sleep 0.1
  done
done

((rounds)) || { echo "all serve the file"; exit 0; }

# rate VARIANT SECONDS prints requests a second.
rate() {
  local out
  out=$(wrk -t1 -c32 -d"$2s" -H "$authorization" "${url[$1]}")
  if grep -q 'Non-2xx\|Socket errors' <<<"$out"; then
    echo "$1: $out" >&2
    return 1
  fi
  awk '/^Requests\/sec/ { print $2 }' <<<"$out"
}
# cpu VARIANT prints the CPU time that nginx and the service used, in microseconds (proc(5)).
cpu() {
  local pid
  for pid in "$(cut -d' ' -f1 "/proc/${nginx[$1]}/task/${nginx[$1]}/children")" "${asked[$1]}"; do sed 's/.*) //' "/proc/$pid/stat"; done |
    awk -v hz="$(getconf CLK_TCK)" '{ used += ($12 + $13) * 1000000 / hz } END { print used }'
}
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

for v in "${variants[@]}"; do rate "$v" 1 >/dev/null; done # warm
for ((round = 1; round <= rounds; round++)); do
  line="round $round:"
  for v in "${variants[@]}"; do
    n=$(cpu "$v")
    r=$(rate "$v" "$duration")
    if [[ $v == all ]]; then sleep 1; fi # it reads what nginx has written
    awk "BEGIN { print ($(cpu "$v") - $n) / ($r * $duration) }" >>"$dir/$v.cpu"
    echo "$r" >>"$dir/$v.rates"
    line+=" $v $r"
  done
  echo "$line"
done

echo
echo "$(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), $rounds rounds of ${duration}s"
for v in "${variants[@]}"; do printf '%-6s %8.0f requests/s   CPU a request, nginx and service: %5.1f µs\n' "$v" "$(median <"$dir/$v.rates")" "$(median <"$dir/$v.cpu")"; done
ratio() { paste "$dir/$1.rates" "$dir/$2.rates" | awk '{ print $1 / $2 }' | median; }
printf 'file / none   %.2f   (target: at least 0.85)\n' "$(ratio file none)"
printf 'fsync / none  %.2f\n' "$(ratio fsync none)"
printf 'all / none    %.2f   (target: at least 0.70)\n' "$(ratio all none)"
awk "BEGIN { printf \"file / none   %.2f   by CPU time\\nall / none    %.2f   by CPU time\\n\", $(median <"$dir/none.cpu") / $(median <"$dir/file.cpu"), $(median <"$dir/none.cpu") / $(median <"$dir/all.cpu") }"
# What was recorded is what was served.
"$dir/securefiles" audit verify --config "$dir/all/securefiles.yaml" | head -n 1
