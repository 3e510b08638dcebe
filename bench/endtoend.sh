#!/usr/bin/env bash
# What a guarded download costs, end to end, and what of that is the service's
# own. Five nginx, one worker each, serve the same 1 KiB file:
#
#   static    without any question
#   return    auth_request to `return 204` inside nginx
#   bare      the snippet, asking a net/http handler that always allows
#   service   the snippet, asking securefiles, with the starter policy
#   million   the same with 1,000,000 policy lines and 310,000 role links more
#
# wrk (1 thread, 32 connections) asks one after the other, ROUNDS times for
# DURATION seconds each, so that a busy moment of the machine hits all of them.
# Medians of the rates and of each round's ratios are printed, and the CPU
# time a request of nginx and of what it asks, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/endtoend.sh
#
# Needs nginx, curl, openssl, wrk and Go; a machine with nothing else to do.
# With ROUNDS=0 it only checks that all serve the file.
set -euo pipefail

rounds=${ROUNDS:-7} duration=${DURATION:-4}
variants=(static return bare service million)

PORT=${PORT:-19080}
source "$(dirname "$0")/common.sh"

(cd "$repo" && go build -o "$dir/securefiles" . && go build -o "$dir/handler" ./bench/bare)
chmod 755 "$dir" # as root, nginx's workers run as another user
mkdir -p "$dir/files/public"
head -c 1024 /dev/zero | tr '\0' x >"$dir/files/public/1k.bin"

free && service=$port
free && admin=$port
free && bare=$port
free && million=$port
free && million_admin=$port
"$dir/securefiles" init "$dir" >/dev/null
printf 'alice:%s\n' "$(openssl passwd -6 alice)" >>"$dir/users.htpasswd"
sed -i -e "s|unix:/run/securefiles/auth.sock|127.0.0.1:$service|" -e "s|127.0.0.1:9181|127.0.0.1:$admin|" \
  -e "s|/var/www/securefiles|$dir/files|" "$dir/securefiles.yaml"
declare -A asked # the process that a variant asks
"$dir/securefiles" serve --config "$dir/securefiles.yaml" 2>"$dir/service.log" &
pids+=($!) asked[service]=$!
mkdir "$dir/million"
cp "$dir"/{model.conf,policy.csv,users.htpasswd,securefiles.yaml} "$dir/million"
sed -i -e "s|127.0.0.1:$service|127.0.0.1:$million|" -e "s|127.0.0.1:$admin|127.0.0.1:$million_admin|" "$dir/million/securefiles.yaml"
awk -v lines="${POLICY_LINES:-1000000}" 'BEGIN {
  for (i = 0; i < lines; i++) printf "p, role%d, main, /team%d/project%d/**, read, allow\n", i % 10000, i % 1000, i / 1000
  for (i = 1; i < 10000; i++) printf "g, role%d, role%d\n", i, (i - 1) / 10
  for (i = 0; i < lines / 10; i++) for (k = 0; k < 3; k++) printf "g, user%d, role%d\n", i, (i * 7 + k * 3001) % 10000
  for (k = 0; k < 3; k++) printf "g, alice, role%d\n", k * 3001
}' >>"$dir/million/policy.csv"
"$dir/securefiles" serve --config "$dir/million/securefiles.yaml" 2>"$dir/million.log" &
pids+=($!) asked[million]=$!
"$dir/handler" "127.0.0.1:$bare" /protected/public/1k.bin 2>"$dir/bare.log" &
pids+=($!) asked[bare]=$!

# The printed configuration, with one worker and no access log, is what all
# of them start from.
"$dir/securefiles" nginx --complete --config "$dir/securefiles.yaml" |
  sed -e 's|^worker_processes.*|worker_processes 1;|' -e 's|access_log .*|access_log off;|' >"$dir/service.conf"
sed "s|server 127.0.0.1:$service;|server 127.0.0.1:$bare;|" "$dir/service.conf" >"$dir/bare.conf"
sed "s|server 127.0.0.1:$service;|server 127.0.0.1:$million;|" "$dir/service.conf" >"$dir/million.conf"
rest=$(sed -e '/# securefiles, for http/,/access_log/d' -e '/# securefiles, for server/,$d' "$dir/service.conf")
echo "$rest access_log off; location /downloads/ { alias $dir/files/; } } }" >"$dir/static.conf"
echo "$rest access_log off; location /downloads/ { auth_request /ask; alias $dir/files/; } location = /ask { internal; return 204; } } }" >"$dir/return.conf"

declare -A url nginx
for v in "${variants[@]}"; do
  free
  mkdir -p "$dir/nginx-$v/run" "$dir/nginx-$v/logs"
  sed -i "s|listen 127.0.0.1:8080|listen 127.0.0.1:$port|" "$dir/$v.conf"
  url[$v]=http://127.0.0.1:$port/downloads/public/1k.bin
  nginx -p "$dir/nginx-$v" -e logs/error.log -c "$dir/$v.conf" -g 'daemon off;' 2>/dev/null &
  pids+=($!) nginx[$v]=$!
done

authorization="Authorization: Basic $(printf alice:alice | base64)"
for v in "${variants[@]}"; do
  for ((deadline = SECONDS + 60; ; )); do
    size=$(curl -s -H "$authorization" "${url[$v]}" | wc -c) || true
    ((size == 1024)) && break
    ((SECONDS < deadline)) || { echo "$v does not serve the file: $(tail -n 2 "$dir"/*.log "$dir/nginx-$v"/logs/*)" >&2; exit 1; }
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
# cpu PID prints the CPU time that it used, in microseconds (proc(5)).
cpu() { sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / hz }'; }
worker() { cut -d' ' -f1 "/proc/${nginx[$1]}/task/${nginx[$1]}/children"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

for v in "${variants[@]}"; do rate "$v" 1 >/dev/null; done # warm
for ((round = 1; round <= rounds; round++)); do
  line="round $round:"
  for v in "${variants[@]}"; do
    n=$(cpu "$(worker "$v")")
    if [[ -v asked[$v] ]]; then a=$(cpu "${asked[$v]}"); fi
    r=$(rate "$v" "$duration")
    echo "$r" >>"$dir/$v.rates"
    requests=$(awk "BEGIN { print $r * $duration }")
    awk "BEGIN { print ($(cpu "$(worker "$v")") - $n) / $requests }" >>"$dir/$v.nginx"
    if [[ -v asked[$v] ]]; then awk "BEGIN { print ($(cpu "${asked[$v]}") - $a) / $requests }"; else echo 0; fi >>"$dir/$v.asked"
    line+=" $v $r"
  done
  echo "$line"
done

echo
echo "$(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), $rounds rounds of ${duration}s"
for v in "${variants[@]}"; do
  printf '%-8s %8.0f requests/s   CPU a request: nginx %5.1f µs, what it asks %5.1f µs\n' \
    "$v" "$(median <"$dir/$v.rates")" "$(median <"$dir/$v.nginx")" "$(median <"$dir/$v.asked")"
done
ratio() { paste "$dir/$1.rates" "$dir/$2.rates" | awk '{ print $1 / $2 }' | median; }
printf 'return  / static  %.2f\n' "$(ratio return static)"
printf 'service / static  %.2f   (target: at least 0.35)\n' "$(ratio service static)"
printf 'service / bare    %.2f   (target: at least 0.90)\n' "$(ratio service bare)"
printf 'million / service %.2f   (target: at least 0.90)\n' "$(ratio million service)"
total() { echo "$(median <"$dir/$1.nginx") $(median <"$dir/$1.asked")" | awk '{ print $1 + $2 }'; }
awk "BEGIN { printf \"service / bare    %.2f   by CPU time, nginx and what it asks\\n\", $(total bare) / $(total service) }"
awk "BEGIN { printf \"million / service %.2f   by CPU time\\n\", $(total service) / $(total million) }"
