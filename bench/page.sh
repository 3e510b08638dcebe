#!/usr/bin/env bash
# Writes the table and the charts of docs/performance.md: what a guarded download costs, of
# a file of 1 KiB, by each way to guard it. Each variant below has an nginx of its own (one
# worker), and a service; all are asked in turn.
#
# Rates and CPU time are of ROUNDS rounds of DURATION seconds, by wrk; system calls are
# counted by strace while 500 requests a second come for two seconds; latency is of
# LATENCY seconds at RATE requests a second, or a third of what the variant can, if that is
# less. The page is changed in DOCS.
#
#   ROUNDS=9 DURATION=3 RATE=2000 LATENCY=10 ./bench/page.sh
#   VARIANTS='static service unix' DOCS=/tmp/docs ./bench/page.sh
#   VARIANTS='static-cache base cache all' BASE=../before/securefiles ./bench/page.sh
#
# base is another binary, that of an earlier version, with its own snippet.
#
# Needs strace, Apache with mod_xsendfile, Django and gunicorn beside what lib.sh does. A
# client certificate, the sixth source of identity, is not among them: wrk has none.
set -euo pipefail

rounds=7 duration=2
fixed=${RATE:-2000} latency=${LATENCY:-5}
read -ra variants <<<"${VARIANTS:-static static-cache return floor bare service unix cache${BASE:+ base} basic es256 rs256 session link limits audit million all classic s3 apache django}"
# shellcheck disable=SC2016 # Markdown
declare -A what=(
  [static]='nginx, and nobody is asked'
  [static-cache]='… with `open_file_cache`'
  [return]='`auth_request` to `return 204` in nginx'
  [floor]='the printed snippet by a unix socket, with `nginx.open_file_cache`, asking another nginx that returns 204 and the same headers: less than any service costs'
  [bare]='the printed snippet, asking a `net/http` handler that always allows'
  [service]='securefiles by TCP, a header from nginx, ten lines of policy'
  [unix]='… by a unix socket'
  [cache]='… by a unix socket, with `nginx.open_file_cache`'
  [base]='… by a unix socket, as it was before'
  [basic]='… HTTP Basic, a password verified before'
  [es256]='… a JWT verified before, ES256'
  [rs256]='… a JWT verified before, RS256'
  [session]='… a session that the application was asked about before'
  [link]='… a link in the place of a user'
  [limits]='… limits of requests in memory: per address, subject and group'
  [audit]='… a record of each decision and each delivery, chained'
  [million]='… a million lines of policy more, 310,000 role links'
  [all]='… a unix socket, `nginx.open_file_cache`, a JWT (ES256), these limits, these records and a million lines at once'
  [classic]='… nginx passes the request on (`front: classic`)'
  [s3]='… the file in a bucket, by S3'
  [apache]='Apache passes it on (`front: apache`, X-Sendfile), HTTP Basic'
  [django]='Django decides itself (X-Accel-Redirect): session, user and group by SQLite; gunicorn, two workers'
)

PORT=${PORT:-19580}
source "$(dirname "$0")/lib.sh"

build project
for tool in bare load token bucket; do (cd "$repo" && go build -o "$dir/$tool" "./bench/$tool"); done
printf 'alice:%s\n' "$(openssl passwd -6 alice)" >"$dir/users.htpasswd"
for n in 1 2 3 4 5 6 7 8; do echo "p, role$n, /team$n/**, read, allow"; done >"$dir/policy.csv"
printf 'p, alice, /project/**, read, allow\np, alice, /project/**, share, allow\n' >>"$dir/policy.csv"
{
  cat "$dir/policy.csv"
  many_lines "${POLICY_LINES:-1000000}"
} >"$dir/million.csv"
export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench

by_header="{header: X-Remote-User, groups_header: X-Remote-Groups, nginx_value: \$bench_user, nginx_groups_value: \$bench_groups}"
by_token='{issuer: bench, audience: [files], groups_claim: realm_access.roles'
# start VARIANT starts it, with what the service is asked and what asks.
start() {
  local v=$1 listen policy=policy.csv identity=$by_header files="root: $dir/files" front='' extra='' user=alice path=/downloads/project/1k.bin made keys=()
  free && listen=127.0.0.1:$port
  free && local admin=$port
  credentials[$v]='Accept: */*'
  case $v in
  unix | cache | floor | base | all) listen=unix:$dir/$v.sock ;;&
  cache | floor | all) keys+=("open_file_cache: 1000") ;;&
  all | million) policy=million.csv ;;&
  all | limits) extra='limits: [{name: addresses, per: address, requests: 1000000000/1m}, {name: users, per: subject, requests: 1000000000/1m}, {name: groups, of: ["@staff"], per: group, requests: 1000000000/1m}]' ;;&
  all | audit)
    "$dir/securefiles" audit key bench 2>/dev/null >"$dir/$v.key"
    mkdir "$dir/$v.logs"
    extra+="
audit: {file: $dir/$v.logs/audit.jsonl, chain: {key_file: $v.key}}"
    keys+=("delivery_log: $dir/$v.logs/delivery.log" "access_log: 'off'")
    ;;&
  all | es256 | rs256)
    made=${v/all/es256}
    credentials[$v]="Authorization: Bearer $("$dir/token" "${made^^}" "$dir/$v.json")"
    identity="{jwt: $by_token, jwks_file: $v.json}}"
    ;;
  basic | apache) identity='{htpasswd: users.htpasswd, remember: 1h}' credentials[$v]=$authorization ;;
  session)
    free && local application=$port
    identity="{session: {url: 'http://127.0.0.1:$application/', cookies: [sessionid], remember: 5m}}" credentials[$v]='Cookie: sessionid=3vh5m0dwq1g8nq7n5v0t3x7c2k9e4r6y'
    ;;
  link) extra='links: {keys_file: link-keys.json}' user='' ;;
  s3)
    mkdir -p "$dir/store/files" && cp -r "$dir/files/project" "$dir/store/files/"
    free && local store=$port
    "$dir/bucket" "127.0.0.1:$store" "$dir/store" 0s 2>"$dir/bucket.log" &
    pids+=($!) beside[$v]=$!
    files="storage: {s3: {bucket: files, endpoint: 'http://127.0.0.1:$store'}}"
    ;;
  esac
  if ((${#keys[@]})); then extra+="
nginx: {$(printf '%s, ' "${keys[@]}")}"; fi
  if [[ $v == base ]]; then binary=$BASE; fi
  if [[ $v == classic || $v == apache ]]; then front=", front: $v"; fi
  cat >"$dir/$v.yaml" <<YAML
listen: $listen
admin: 127.0.0.1:$admin
downloads: [{name: main, url: /downloads/, internal: /protected/, $files$front}]
policy: {file: $policy}
identity: [$identity]
$extra
YAML
  if [[ $v == link ]]; then
    "$dir/securefiles" link key new --config "$dir/$v.yaml" >/dev/null
    made=$("$dir/securefiles" link create /project/1k.bin --as alice --config "$dir/$v.yaml" 2>/dev/null)
    path+="?${made#*\?}"
  fi
  case $v in
  static | static-cache | return | django) ;;
  bare)
    "$dir/bare" "$listen" /protected/project/1k.bin 2>"$dir/bare.log" &
    pids+=($!) asked[$v]=$!
    ;;
  floor)
    mkdir -p "$dir/nginx-answers"
    echo "worker_processes 1; pid $dir/answers.pid; events {} http { access_log off; server { listen $listen; keepalive_requests 1000000000; location / {
      add_header X-Securefiles-Location /protected/project/1k.bin; add_header X-Securefiles-Disposition 'attachment; filename=\"1k.bin\"';
      add_header X-Securefiles-Cache-Control 'private, no-store'; add_header X-Securefiles-CSP \"default-src 'none'; sandbox\"; add_header X-Securefiles-Limit-Rate 0;
      add_header Referrer-Policy no-referrer; add_header X-Securefiles-Decision g1:policy.csv:9; add_header X-Securefiles-Reason policy; add_header X-Securefiles-User alice; return 204; } } }" >"$dir/answers.conf"
    nginx -p "$dir/nginx-answers" -e "$dir/answers.log" -c "$dir/answers.conf" -g 'daemon off;' 2>/dev/null &
    pids+=($!) asked[$v]=$!
    ;;
  *) serve "$v" "$dir/$v.yaml" ;;
  esac
  if [[ $v == apache ]]; then
    apache "$listen" "$path"
    return
  fi
  printed "$dir/$v.yaml" | sed "s|^http {|http { map \"\" \$bench_user { default \"$user\"; } map \"\" \$bench_groups { default \"${user:+staff, sales, offline_access}\"; }|" >"$dir/$v.conf"
  local plain server='access_log off; server { listen 127.0.0.1:8080;'
  plain=$(sed '/# securefiles, for http/,$d' "$dir/$v.conf")
  case $v in
  static) echo "$plain $server location /downloads/ { alias $dir/files/; } } }" >"$dir/$v.conf" ;;
  static-cache) echo "$plain open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s; $server location /downloads/ { alias $dir/files/; } } }" >"$dir/$v.conf" ;;
  return) echo "$plain $server location /downloads/ { auth_request /ask; alias $dir/files/; } location = /ask { internal; return 204; } } }" >"$dir/$v.conf" ;;
  session) sed -i "s|^http {|http { server { listen 127.0.0.1:$application; default_type application/json; return 200 '{\"subject\":\"alice\",\"groups\":[\"staff\",\"sales\",\"offline_access\"]}'; }|" "$dir/$v.conf" ;;
  django)
    export BENCH_DATABASE=$dir/django.db PYTHONDONTWRITEBYTECODE=1
    credentials[$v]=$(cd "$repo/bench" && /usr/bin/python3 accel.py)
    gunicorn --chdir "$repo/bench" --workers 2 --umask 0 --bind "unix:$dir/django.sock" accel 2>"$dir/django.log" &
    pids+=($!) asked[$v]=$!
    echo "$plain $server location /downloads/ { proxy_pass http://unix:$dir/django.sock; proxy_set_header Host \$host; } location /protected/ { internal; alias $dir/files/; } } }" >"$dir/$v.conf"
    ;;
  esac
  if [[ $listen == unix:* ]]; then
    while [[ ! -S $dir/$v.sock ]]; do sleep 0.1; done
    chmod 666 "$dir/$v.sock"
  fi
  front "$v" "$path"
  unset binary
}
# apache SERVICE PATH starts Apache with the example's configuration.
apache() {
  free
  mkdir -p "$dir/apache/run"
  sed -e "s|<VirtualHost \*:80>|<VirtualHost *:$port>|" -e "s|127.0.0.1:9180|$1|" -e "s|XSendFilePath .*|XSendFilePath $dir/files|" "$repo/examples/apache/securefiles.conf" >"$dir/apache/site.conf"
  {
    echo "ServerRoot /etc/apache2
ServerName localhost
Listen 127.0.0.1:$port
PidFile $dir/apache/run/pid
ErrorLog $dir/apache/error.log
DefaultRuntimeDir $dir/apache/run
Mutex pthread
MaxKeepAliveRequests 0
KeepAliveTimeout 60
StartServers 8
MinSpareThreads 200
MaxSpareThreads 400"
    if ((EUID == 0)); then printf 'User www-data\nGroup www-data\n'; fi
    for m in mpm_event authz_core headers proxy proxy_http rewrite xsendfile mime; do echo "LoadModule ${m}_module /usr/lib/apache2/modules/mod_$m.so"; done
    printf 'TypesConfig /etc/mime.types\n<Directory />\nRequire all denied\n</Directory>\nInclude %s\n' "$dir/apache/site.conf"
  } >"$dir/apache.conf"
  apache2 -f "$dir/apache.conf" -DFOREGROUND 2>"$dir/apache.log" &
  pids+=($!) nginx[apache]=$! url[apache]=http://127.0.0.1:$port$2
}
# Apache and gunicorn work in children: all of a process's count, and there is no one worker.
tree() { local child; echo "$1"; for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do tree "$child"; done; }
used() {
  local pid sum=0
  if [[ -z $1 ]]; then echo 0; return; fi
  for pid in $(tree "$1"); do
    sum=$(sed 's/.*) //' "/proc/$pid/stat" | awk -v hz="$(getconf CLK_TCK)" -v sum="$sum" '{ printf "%.0f", sum + ($12 + $13) * 1000000 / hz }')
  done
  echo "$sum"
}
worker() { echo "${nginx[$1]}"; }
settle() { if [[ $1 == audit || $1 == all ]]; then sleep 1; fi; } # it reads what nginx has written

for v in "${variants[@]}"; do start "$v"; done
all_serve
load=$(cut -d' ' -f1 /proc/loadavg)
measure

# calls VARIANT prints how many system calls a request takes, of what asks and of what is asked.
calls() {
  local v=$1 part pid tracers=() n counted
  for part in "${nginx[$v]}" "${asked[$v]:-}"; do
    [[ -n $part ]] || continue
    local of=()
    for pid in $(tree "$part"); do of+=(-p "$pid"); done
    strace -f -c -qq -o "$dir/$part.calls" "${of[@]}" 2>"$dir/strace.log" &
    tracers+=($!)
    for pid in $(tree "$part"); do while grep -q '^TracerPid:\s0$' "/proc/$pid/status"; do sleep 0.05; done; done
  done
  n=$("$dir/load" -rate "$(at "$v" 500)" -for 2s -header "${credentials[$v]}" "${url[$v]}" | cut -d' ' -f1)
  kill "${tracers[@]}"
  wait "${tracers[@]}" || true
  for part in "${nginx[$v]}" "${asked[$v]:-}"; do
    counted=0
    if [[ -n $part ]]; then counted=$(awk '$NF == "total" { print $4 }' "$dir/$part.calls"); fi
    awk "BEGIN { printf \"%.1f \", ${counted:?"strace counted nothing: $(<"$dir/strace.log")"} / $n }"
  done
}
# at VARIANT RATE is the rate, or a third of what the variant can.
at() { awk "BEGIN { most = $(of "$1" rates) / 3; printf \"%.0f\", $2 < most ? $2 : most }"; }

{
  echo "machine	$(machine "$load" "rates and latency say little, and CPU time and system calls more")"
  echo "rounds	$rounds	$duration	$latency"
  for v in "${variants[@]}"; do
    case $v in floor | cache | all) against=static-cache ;; *) against=static ;; esac
    echo "variant	$v	${what[$v]}	$against"
    for kind in rates nginx asked beside; do echo "$kind	$(tr '\n' '\t' <"$dir/$v.$kind")"; done
    echo "calls	$(calls "$v" | tr ' ' '\t')"
    r=$(at "$v" "$fixed")
    "$dir/load" -rate "$r" -for 1s -header "${credentials[$v]}" "${url[$v]}" >/dev/null # warm
    echo "latency	$r	$("$dir/load" -rate "$r" -for "${latency}s" -header "${credentials[$v]}" "${url[$v]}" | tr ' ' '\t')"
    echo "$v" >&2
  done
  printf 'wanted\t%s\t%s\t%s\n' cache static-cache 0.45 cache base 1.2 all cache 0.75 service bare 0.9 million service 0.9
} >"$dir/results.tsv"
(cd "$repo" && go run ./bench/report "${DOCS:-docs}" <"$dir/results.tsv")
