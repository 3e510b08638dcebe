#!/usr/bin/env bash
# How long a download takes at RATE requests a second, far from what can be done, while
#
#   quiet    nothing else goes on
#   reload   the service replaces a million lines of policy, again and again, by one line more and one less
#   logins   twelve clients log in with wrong passwords, of which each is verified by bcrypt at cost 12
#
# static asks nobody. service is by a unix socket, a header from nginx says who asks, and both have
# open_file_cache; N is service with GOMAXPROCS=N, for each of PROCS, and base is another binary. static is asked while the service does
# what it does: all share the machine. Medians of ROUNDS rounds of LATENCY seconds, in turns, in milliseconds, as
# a table for docs/performance.md. A request's time begins when it was due.
#
#   BASE=../before/securefiles ROUNDS=5 RATE=2000 LATENCY=5 PROCS='1 4' WHILE='quiet reload' ./bench/latency.sh
set -euo pipefail

rounds=5 duration=1
fixed=${RATE:-2000} latency=${LATENCY:-5}
read -ra services <<<"service ${PROCS-1} ${BASE:+base}"
read -ra disturbances <<<"${WHILE:-quiet reload logins}"
variants=(static "${services[@]}")

PORT=${PORT:-19880}
source "$(dirname "$0")/lib.sh"

build project
(cd "$repo" && go build -o "$dir/load" ./bench/load)
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do # "secret", at cost 12
  echo "user$n:\$2y\$12\$c0TLds0Qmy64REPfWFrHD.ujwPj9wPdQLp8NOIW5LY4jJw8Cr/cQu"
done >"$dir/users.htpasswd"
{
  printf 'p, alice, /project/**, read, allow\n'
  awk -v lines="${POLICY_LINES:-1000000}" 'BEGIN { for (i = 0; i < lines; i++) printf "p, role%d, /team%d/project%d/**, read, allow\n", i % 10000, i % 1000, i / 1000 }'
} >"$dir/other.csv"
{
  cat "$dir/other.csv"
  echo 'p, bob, /project/**, read, allow'
} >"$dir/one.csv"
for v in "${services[@]}"; do
  free && admin=$port
  ln -s other.csv "$dir/$v.csv"
  cat >"$dir/$v.yaml" <<YAML
listen: unix:$dir/$v.sock
admin: 127.0.0.1:$admin
downloads: [{name: main, url: /downloads/, internal: /protected/, root: $dir/files}]
policy: {file: $v.csv}
identity: [{htpasswd: users.htpasswd}, {header: X-Remote-User, nginx_value: \$bench_user}]
nginx: {open_file_cache: 1000}
YAML
  credentials[$v]='Accept: */*'
  printed "$dir/$v.yaml" | sed 's|^http {|http { map "" $bench_user { default alice; }|' >"$dir/$v.conf"
done
credentials[static]='Accept: */*'
serve service "$dir/service.yaml"
for v in "${services[@]:1}"; do
  case $v in
  base) binary=$BASE serve base "$dir/base.yaml" ;;
  *) GOMAXPROCS=$v serve "$v" "$dir/$v.yaml" ;;
  esac
done
for v in "${services[@]}"; do
  while [[ ! -S $dir/$v.sock ]]; do sleep 0.1; done
  chmod 666 "$dir/$v.sock"
  front "$v" /downloads/project/1k.bin
done
plain=$(sed '/# securefiles, for http/,$d' "$dir/service.conf")
echo "$plain access_log off; open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s; server { listen 127.0.0.1:8080; location /downloads/ { alias $dir/files/; } } }" >"$dir/static.conf"
front static /downloads/project/1k.bin
all_serve

# begin_DISTURBANCE VARIANT begins it.
begin_quiet() { :; }
begin_reload() {
  (while :; do for each in one other; do
    before=$(grep -c 'policy loaded' "$dir/$1.log")
    ln -sf "$each.csv" "$dir/next.csv" && mv "$dir/next.csv" "$dir/$1.csv" && kill -HUP "${asked[$1]}"
    while (($(grep -c 'policy loaded' "$dir/$1.log") == before)); do sleep 0.1; done
  done; done) &
  disturbers+=($!)
}
begin_logins() {
  local n
  for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    (while :; do curl -s -o /dev/null -u "user$n:wrong$n" "${url[$1]}" || true; done) &
    disturbers+=($!)
  done
}
# end VARIANT ends what goes on, and waits until the service is idle.
end() {
  local before
  if ((${#disturbers[@]})); then
    kill "${disturbers[@]}"
    wait "${disturbers[@]}" 2>/dev/null || true
  fi
  while before=$(used "${asked[$1]}") && sleep 0.5 && (($(used "${asked[$1]}") - before > 50000)); do :; done
}
ask() { "$dir/load" -rate "$fixed" -for "$2" -header "${credentials[$1]}" "${url[$1]}"; }

for v in "${variants[@]}"; do ask "$v" 1s >/dev/null; done # warm
for ((round = 1; round <= rounds; round++)); do
  for what in "${disturbances[@]}"; do
    for v in "${services[@]}"; do
      disturbers=()
      "begin_$what" "$v"
      sleep 1 # until it is in full swing
      for asks in "$v" static; do
        ask "$asks" "${latency}s" >>"$dir/$what.$v.$asks"
      done
      end "$v"
    done
  done
  echo "round $round" >&2
done
# took FILE FIELD is the median of a percentile, in milliseconds.
took() { cut -d' ' -f"$2" "$dir/$1" | median | awk '{ printf "%.2f", $1 / 1000 }'; }
echo "At $fixed requests a second, $(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), $rounds rounds of ${latency} s; in ms:"
echo
echo '| | 50 %: `service`, `static` | 99 % | 99.9 % | 99 % above `static` |'
echo '|---|---|---|---|---|'
for what in "${disturbances[@]}"; do
  for v in "${services[@]}"; do
    echo "| $what, \`$v\` | $(took "$what.$v.$v" 2), $(took "$what.$v.static" 2) | $(took "$what.$v.$v" 4), $(took "$what.$v.static" 4) | $(took "$what.$v.$v" 5), $(took "$what.$v.static" 5) | $(awk "BEGIN { printf \"%+.2f\", $(took "$what.$v.$v" 4) - $(took "$what.$v.static" 4) }") |"
  done
done
