#!/usr/bin/env bash
# What it costs to find out who asks, beside a header that nginx sets. Each
# source has a service and an nginx (one worker) of its own, which serve the same
# 1 KiB file to the same user:
#
#   header    a user and groups that nginx sets
#   basic     HTTP Basic, a password that has been verified before
#   es256     a token (JWT) that has been verified before, by an elliptic key
#   rs256     the same, by an RSA key
#   session   a cookie that the application has been asked about before
#
# wrk (1 thread, 32 connections) asks one after the other, ROUNDS times for
# DURATION seconds each, so that a busy moment of the machine hits all of them.
# Medians of the rates and of each round's ratios are printed, and the CPU time a
# request of nginx and of the service, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/identity.sh
#
# Needs nginx, curl, openssl, wrk and Go; a machine with nothing else to do.
# With ROUNDS=0 it only checks that all of them serve the file.
set -euo pipefail

rounds=${ROUNDS:-9} duration=${DURATION:-3}
sources=(header basic es256 rs256 session)

PORT=${PORT:-19180}
source "$(dirname "$0")/common.sh"

(cd "$repo" && go build -o "$dir/securefiles" . && go build -o "$dir/token" ./bench/token)
chmod 755 "$dir" # as root, nginx's workers run as another user
mkdir -p "$dir/files/project"
head -c 1024 /dev/zero | tr '\0' x >"$dir/files/project/1k.bin"
printf 'alice:%s\n' "$(openssl passwd -6 alice)" >"$dir/users.htpasswd"
printf 'p, alice, /project/**, read, allow\n' >"$dir/policy.csv"
es256=$("$dir/token" ES256 "$dir/es256.json")
rs256=$("$dir/token" RS256 "$dir/rs256.json")
token="{issuer: bench, audience: [files], groups_claim: realm_access.roles"
free && application=$port

declare -A identity credentials url service_pid nginx
identity=(
  [header]="{header: X-Remote-User, groups_header: X-Remote-Groups, nginx_value: \$bench_user, nginx_groups_value: \$bench_groups}"
  [basic]="{htpasswd: users.htpasswd, remember: 1h}"
  [es256]="{jwt: $token, jwks_file: es256.json}}"
  [rs256]="{jwt: $token, jwks_file: rs256.json}}"
  [session]="{session: {url: 'http://127.0.0.1:$application/', cookies: [sessionid], remember: 5m}}"
)
credentials=(
  [header]="Accept: */*"
  [basic]="Authorization: Basic $(printf alice:alice | base64)"
  [es256]="Authorization: Bearer $es256"
  [rs256]="Authorization: Bearer $rs256"
  [session]="Cookie: sessionid=3vh5m0dwq1g8nq7n5v0t3x7c2k9e4r6y"
)
# The application, and the variables of the header source, are nginx's own.
application_conf="server { listen 127.0.0.1:$application; default_type application/json; return 200 '{\"subject\":\"alice\",\"groups\":[\"staff\",\"sales\",\"offline_access\"]}'; }"
variables='map "" $bench_user { default alice; } map "" $bench_groups { default "staff, sales, offline_access"; }'

for s in "${sources[@]}"; do
  free && service=$port
  free && admin=$port
  free
  cat >"$dir/$s.yaml" <<EOF
listen: 127.0.0.1:$service
admin: 127.0.0.1:$admin
downloads: [{name: main, url: /downloads/, internal: /protected/, root: $dir/files}]
policy: {file: policy.csv}
identity: [${identity[$s]}]
EOF
  mkdir -p "$dir/nginx-$s/run" "$dir/nginx-$s/logs"
  "$dir/securefiles" nginx --complete --config "$dir/$s.yaml" |
    sed -e 's|^worker_processes.*|worker_processes 1;|' -e 's|access_log .*|access_log off;|' \
      -e "s|listen 127.0.0.1:8080|listen 127.0.0.1:$port|" >"$dir/$s.conf"
  if [[ $s == header ]]; then sed -i "s|^http {|http { $variables|" "$dir/$s.conf"; fi
  if [[ $s == session ]]; then sed -i "s|^http {|http { $application_conf|" "$dir/$s.conf"; fi
  "$dir/securefiles" serve --config "$dir/$s.yaml" 2>"$dir/$s.log" &
  pids+=($!) service_pid[$s]=$!
  nginx -p "$dir/nginx-$s" -e logs/error.log -c "$dir/$s.conf" -g 'daemon off;' 2>/dev/null &
  pids+=($!) nginx[$s]=$!
  url[$s]=http://127.0.0.1:$port/downloads/project/1k.bin
done

for s in "${sources[@]}"; do
  for ((deadline = SECONDS + 60; ; )); do
    size=$(curl -sf -H "${credentials[$s]}" "${url[$s]}" | wc -c) || true
    ((size == 1024)) && break
    ((SECONDS < deadline)) || { echo "$s does not serve the file: $(cat "$dir/$s.log" "$dir/nginx-$s"/logs/*)" >&2; exit 1; }
    sleep 0.1
  done
done

((rounds)) || { echo "all of them serve the file"; exit 0; }

# rate SOURCE SECONDS prints requests a second.
rate() {
  local out
  out=$(wrk -t1 -c32 -d"$2s" -H "${credentials[$1]}" "${url[$1]}")
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

for s in "${sources[@]}"; do rate "$s" 1 >/dev/null; done # warm
for ((round = 1; round <= rounds; round++)); do
  line="round $round:"
  for s in "${sources[@]}"; do
    n=$(cpu "$(worker "$s")") a=$(cpu "${service_pid[$s]}")
    r=$(rate "$s" "$duration")
    echo "$r" >>"$dir/$s.rates"
    requests=$(awk "BEGIN { print $r * $duration }")
    awk "BEGIN { print ($(cpu "$(worker "$s")") - $n) / $requests }" >>"$dir/$s.nginx"
    awk "BEGIN { print ($(cpu "${service_pid[$s]}") - $a) / $requests }" >>"$dir/$s.service"
    line+=" $s $r"
  done
  echo "$line"
done

echo
echo "$(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), $rounds rounds of ${duration}s"
for s in "${sources[@]}"; do
  printf '%-8s %6.0f requests/s, / header %.2f (target: at least 0.80)   CPU a request: nginx %5.1f µs, service %5.1f µs\n' \
    "$s" "$(median <"$dir/$s.rates")" "$(paste "$dir/$s.rates" "$dir/header.rates" | awk '{ print $1 / $2 }' | median)" \
    "$(median <"$dir/$s.nginx")" "$(median <"$dir/$s.service")"
done
