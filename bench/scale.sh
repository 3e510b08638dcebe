#!/usr/bin/env bash
# Writes the tables of docs/sizing.md: how memory, the time to load, the CPU time of a request
# and latency grow with cores, lines of policy, users, and instances on one Redis; and what
# happens past the limit. All serve the same 1 KiB file, over a unix socket, to whom a header
# names; the snippet is the printed one, without an access log. Where processes are held on
# cores (taskset), who asks has the others, if there are any. The page is changed in DOCS.
#
# LINES_OF_POLICY are the sizes of policy; one that the machine has no memory for is left out, and said so.
#
#   ROUNDS=5 DURATION=3 ./bench/scale.sh
#   LINES_OF_POLICY='10 1000 100000 1000000 10000000' DOCS=/tmp/docs ./bench/scale.sh
#
# Needs redis-server and taskset beside what lib.sh does.
set -euo pipefail

rounds=3 duration=2
read -ra sizes <<<"${LINES_OF_POLICY:-10 1000 100000 1000000}"
fixed=${RATE:-1000}

PORT=${PORT:-20580}
source "$(dirname "$0")/lib.sh"

cores=$(nproc)
load=$(cut -d' ' -f1 /proc/loadavg)
declare -A askers # the cores that who asks a variant has
wrk() { taskset -c "${askers[${v:-all}]:-0-$((cores - 1))}" "$(type -P wrk)" "$@"; }
used() { # of all of these processes
  local pid sum=0
  for pid in $1; do
    sum=$(sed 's/.*) //' "/proc/$pid/stat" | awk -v hz="$(getconf CLK_TCK)" -v sum="$sum" '{ printf "%.0f", sum + ($12 + $13) * 1000000 / hz }')
  done
  echo "$sum"
}
worker() { cat "/proc/${nginx[$1]}/task/${nginx[$1]}/children"; } # all of them
page=$dir/sizing.md
row() { printf '| %s ' "$@" >>"$page"; echo '|' >>"$page"; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
memory() { awk -v key="$2:" '$1 == key { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; } # MiB
available() { awk '$1 == "MemAvailable:" { printf "%.0f", $2 / 1024 }' /proc/meminfo; }

build project
(cd "$repo" && go build -o "$dir/load" ./bench/load)
allowed='p, @authenticated, /project/**, read, allow'
echo "$allowed" >"$dir/few.csv"

declare -A metrics
# start VARIANT POLICY EXTRA [WORKERS CORES-OF-NGINX CORES-OF-THE-SERVICE] starts both. Whom
# the client's X-Bench names asks: what a load says there, or alice.
start() {
  local v=$1 workers=${4:-1} of_nginx=${5:-0-$((cores - 1))} of_service=${6:-0-$((cores - 1))}
  free && metrics[$v]=127.0.0.1:$port
  cat >"$dir/$v.yaml" <<YAML
listen: unix:$dir/$v.sock
admin: ${metrics[$v]}
downloads: [{name: main, url: /downloads/, internal: /protected/, root: $dir/files}]
policy: {file: $2}
identity: [${identity:-{header: X-Remote-User, nginx_value: \$bench_user\}}]
$3
YAML
  taskset -c "$of_service" "$dir/securefiles" serve --config "$dir/$v.yaml" 2>"$dir/$v.log" &
  pids+=($!) asked[$v]=$!
  printed "$dir/$v.yaml" | sed -e "s|^worker_processes 1;|worker_processes $workers;|" -e "s|^http {|http { map \$http_x_bench \$bench_user { \"\" alice; default \$http_x_bench; } ${application:-}|" >"$dir/$v.conf"
  until curl -sf "${metrics[$v]}/readyz" >"$dir/ready"; do
    kill -0 "${asked[$v]}" || { cat "$dir/$v.log" >&2; exit 1; }
    sleep 0.05
  done
  chmod 666 "$dir/$v.sock"
  credentials[$v]='Accept: */*'
  front "$v" /downloads/project/1k.bin
  taskset -a -p -c "$of_nginx" "${nginx[$v]}" >"$dir/taskset"
  local deadline=$((SECONDS + 60))
  until curl -sf -H "${probe:-Accept: */*}" "${url[$v]}" >"$dir/body"; do
    ((SECONDS < deadline)) || { echo "$v does not serve the file: $(tail -n 2 "$dir/$v.log" "$dir/nginx-$v"/logs/*)" >&2; exit 1; }
    sleep 0.1
  done
  local pid
  for pid in $(worker "$v"); do taskset -p -c "$of_nginx" "$pid" >"$dir/taskset"; done
}
# gone VARIANT ends both.
gone() { kill "${nginx[$1]}" "${asked[$1]}"; wait "${nginx[$1]}" "${asked[$1]}" 2>/dev/null || true; }
# loaded VARIANT ARGUMENTS… has bench/load ask it.
loaded() { local v=$1; taskset -c "${askers[$v]:-0-$((cores - 1))}" "$dir/load" "${@:2}" "${url[$v]}"; }
metric() { curl -sf "${metrics[$1]}/metrics" | awk -v name="$2" '$1 == name { print $2 }'; }
percentiles() { awk '{ printf "%.2f, %.2f", $2 / 1000, $4 / 1000 }'; } # of what load prints: 50 and 99, in ms

# --- cores
variants=()
declare -A where
for ((n = 1; ; n = n * 2 < cores ? n * 2 : cores)); do
  v=on-$n variants+=("on-$n") where[on-$n]="nginx and the service on $n"
  if ((n < cores)); then askers[$v]=$n-$((cores - 1)); fi
  start "$v" few.csv '' "$n" "0-$((n - 1))" "0-$((n - 1))"
  if ((n == cores)); then break; fi
done
if ((cores > 1)); then
  variants+=(apart) where[apart]='nginx on one, the service on another'
  start apart few.csv '' 1 0 1
fi
unset v
if ((rounds == 0)); then all_serve; fi
measure >&2
cat >>"$page" <<MD
**Cores.** \`wrk\` with 32 connections and all that it asks; it has the cores that are left, and shares where none is. Latency at a third of the rate.

| cores | requests/s | CPU a request: nginx, service (µs) | what one core of the service carries | latency: 50 %, 99 % (ms) |
|---|---|---|---|---|
MD
for v in "${variants[@]}"; do
  third=$(calc %.0f "$(of "$v" rates) / 3")
  row "${where[$v]}" "$(calc %.0f "$(of "$v" rates)")" "$(calc '%.1f' "$(of "$v" nginx)"), $(calc '%.1f' "$(of "$v" asked)")" \
    "$(calc %.0f "1000000 / $(of "$v" asked)")/s" "$(loaded "$v" -rate "$third" -for 3s | percentiles) at $third/s"
done
few_nginx=$(of on-1 nginx) few_service=$(of on-1 asked)
for v in "${variants[@]}"; do gone "$v"; done
unset v

# --- lines of policy
cat >>"$page" <<MD

**Lines of policy.** A tenth as many users as lines, each with three of 10,000 roles that lie in each other (\`g\`), so that there are 0.31
role links to a line. A thousand users ask. "Replaced" is while the policy, with a line more, is loaded again beside the one that serves.

| lines | file (MB) | loading (s) | memory after it (MiB) | most while it is replaced (MiB) | CPU a request: nginx, service (µs) | latency at $fixed/s: 50 %, 99 % (ms) | while it is replaced |
|---|---|---|---|---|---|---|---|
MD
declare -A held most
for n in "${sizes[@]}"; do
  needs=$((n / 1000 + 300)) # MiB: about twice what it takes at most
  if (($(available) < needs)); then
    row "$n" "left out: $(available) MiB of memory are free, and it may need $needs" '' '' '' '' '' ''
    continue
  fi
  {
    echo "$allowed"
    many_lines "$n"
  } >"$dir/lines.csv"
  begin=$(date +%s.%N)
  start lines lines.csv ''
  took=$(sed -n 's/.*msg="policy loaded".* took=\([^ ]*\).*/\1/p' "$dir/lines.log" | sed 's/ms$/ * 0.001/; s/µs$/ * 0.000001/; s/m\([0-9]\)/ * 60 + \1/; s/s$//')
  took=$(calc %.2f "$took")
  held[$n]=$(memory "${asked[lines]}" VmRSS)
  names=$((n >= 10000 ? 1000 : (n + 9) / 10))
  loaded lines -rate "$fixed" -for 1s -names "$names" -header 'X-Bench: user{n}' >/dev/null # warm
  a=$(used "$(worker lines)") b=$(used "${asked[lines]}")
  quiet=$(loaded lines -rate "$fixed" -for 3s -names "$names" -header 'X-Bench: user{n}')
  count=${quiet%% *}
  cpu="$(calc %.1f "($(used "$(worker lines)") - $a) / $count"), $(calc %.1f "($(used "${asked[lines]}") - $b) / $count")"
  echo 5 >"/proc/${asked[lines]}/clear_refs"
  loaded lines -rate "$fixed" -for "$(calc %.0f "$took * 1.3 + 1")s" -names "$names" -header 'X-Bench: user{n}' >"$dir/meanwhile" &
  asking=$!
  size=$(calc %.1f "$(stat -c %s "$dir/lines.csv") / 1000000")
  echo 'p, role1, /one-more/**, read, allow' >>"$dir/lines.csv"
  deadline=$((SECONDS + 300))
  until [[ $(metric lines securefiles_policy_generation) == 2 ]]; do
    ((SECONDS < deadline)) || { echo "the policy of $n lines was not loaded again: $(tail -n 2 "$dir/lines.log")" >&2; exit 1; }
    sleep 0.1
  done
  most[$n]=$(memory "${asked[lines]}" VmHWM)
  wait "$asking"
  row "$n" "$size" "$took" "${held[$n]}" "${most[$n]}" "$cpu" "$(percentiles <<<"$quiet")" "$(percentiles <"$dir/meanwhile")"
  gone lines
  rm "$dir/lines.csv"
  echo "$n lines: $(calc %.0f "$(date +%s.%N) - $begin") s" >&2
done

# --- users
cat >>"$page" <<MD

**Users.** So many different ones ask, each once, as fast as they are answered; memory of the service before and afterwards.

| | users | memory: before, afterwards (MiB) | CPU a request, service (µs) |
|---|---|---|---|
MD
declare -A grown
free && sessions=$port
application="server { listen 127.0.0.1:$sessions; access_log off; default_type application/json; return 200 '{\"subject\":\"alice\",\"groups\":[\"staff\"]}'; }"
for kind in header limits sessions; do
  extra='' identity='' name='X-Bench: user{n}'
  case $kind in
  header) what='a header, and no limits' ;;
  limits) what='a header, and a limit of requests per subject, in memory' extra='limits: [{name: users, per: subject, requests: 1000000000/1h}]' ;;
  sessions)
    what='sessions of an application, which are remembered for an hour'
    identity="{session: {url: 'http://127.0.0.1:$sessions/', cookies: [sessionid], remember: 1h}}"
    name='Cookie: sessionid=3vh5m0dwq1g8nq7n5v0t3x7c2k9e{n}'
    ;;
  esac
  for n in 1 1000 100000; do
    probe=${name//\{n\}/probe}
    start users few.csv "$extra"
    before=$(memory "${asked[users]}" VmRSS) a=$(used "${asked[users]}")
    loaded users -rate 1000000 -for "$(calc %.6f "$n / 1000000")s" -names "$n" -connections 32 -header "$name" >/dev/null
    after=$(memory "${asked[users]}" VmRSS)
    row "$what" "$n" "$before, $after" "$(if ((n > 1)); then calc %.1f "($(used "${asked[users]}") - $a) / $n"; fi)"
    grown[$kind]=$((after - before))
    gone users
  done
done
unset identity application probe

# --- instances on one Redis
redis-server --port 0 --unixsocket "$dir/redis.sock" --save "" --appendonly no >"$dir/redis.log" &
pids+=($!) redis=$!
until [[ -S $dir/redis.sock ]]; do sleep 0.05; done
chmod 777 "$dir/redis.sock"
for n in 1 2 3; do
  start "instance-$n" few.csv "limits: [{name: users, per: subject, requests: 1000000000/1m}]
state: {redis: {address: ['unix:$dir/redis.sock']}}"
done
cat >>"$page" <<MD

**Instances on one Redis.** Each with an nginx of its own, a limit per subject that Redis counts ($(redis-server --version | grep -o 'v=[^ ]*')), and 32 connections of wrk; all of them share the cores.

| instances | decisions/s, of all | CPU a decision: service, Redis (µs) | what one core of Redis carries |
|---|---|---|---|
MD
for n in 1 2 3; do
  a=$(used "$redis") b=$(used "$(for ((i = 1; i <= n; i++)); do echo "${asked[instance-$i]}"; done)") waiting=()
  for ((i = 1; i <= n; i++)); do
    rate "instance-$i" $((duration * 2)) >"$dir/instance-$i.rate" &
    waiting+=($!)
  done
  for pid in "${waiting[@]}"; do wait "$pid"; done
  sum=$(for ((i = 1; i <= n; i++)); do cat "$dir/instance-$i.rate"; done | awk '{ s += $1 } END { print s }')
  of_redis=$(calc %.1f "($(used "$redis") - $a) / ($sum * $duration * 2)")
  row "$n" "$(calc %.0f "$sum")" "$(calc %.1f "($(used "$(for ((i = 1; i <= n; i++)); do echo "${asked[instance-$i]}"; done)") - $b) / ($sum * $duration * 2)"), $of_redis" "$(calc %.0f "1000000 / $of_redis")/s"
done
for n in 1 2 3; do gone "instance-$n"; done

# --- past the limit
if ((cores > 1)); then
  last=$((cores - 1))
  askers[limit]=0-$((last - 1))
  start limit few.csv '' 1 $last $last
  v=limit
  can=$(for i in 1 2 3; do rate limit 2; done | median)
  unset v
  cat >>"$page" <<MD

**Past the limit.** nginx with one worker and the service share one core, which can do $(calc %.0f "$can") requests/s with 32 connections; 2,000 connections
ask on the others, for three seconds, whether or not they were answered. Latency is from the moment a request was due. The last rows are without \`max_conns\`, and with \`keepalive 32\`.

| asked for | requests/s | answered 200/s | latency of these: 50 %, 99 % (ms) | 503 | after, 99 % (ms) | no answer |
|---|---|---|---|---|---|---|
MD
  past() { # LABEL TIMES
    loaded limit -rate "$(calc %.0f "$can * $2")" -for 3s -connections 2000 -refused >"$dir/past"
    # shellcheck disable=SC2046
    set -- "$@" $(<"$dir/past")
    row "$1" "$(calc %.0f "$3 / ${13} * 1000000")" "$(calc %.0f "$8 / ${13} * 1000000")" "$(calc '%.0f, ' "$4 / 1000")$(calc %.0f "$6 / 1000")" "$(calc '%.0f %%' "$9 / $3 * 100")" "$(calc %.0f "${12} / 1000")" "$((${10} + ${11}))"
  }
  for times in 0.5 1 1.5 2 3; do past "$times" "$times"; done
  sed -i -e 's/ max_conns=512//' -e 's/keepalive 128;/keepalive 32; /' "$dir/limit.conf"
  old=$(worker limit)
  kill -HUP "${nginx[limit]}"
  while kill -0 $old 2>/dev/null; do sleep 0.1; done
  for pid in $(worker limit); do taskset -p -c "$last" "$pid" >"$dir/taskset"; done
  for times in 1 1.5; do past "$times, without" "$times"; done
  gone limit
fi

# --- what a model needs
small=${sizes[0]} large=$small
for n in "${!held[@]}"; do if ((n > large)); then large=$n; fi; done
cat >>"$page" <<MD

**What follows**, for the formulas below: a request costs $(calc %.0f "$few_nginx") µs of nginx and $(calc %.0f "$few_service") µs of the service where both have one core.$(
  if ((large > small)); then
    echo " A line, with its share of role links, takes $(calc %.0f "(${held[$large]} - ${held[$small]}) * 1048576 / ($large - $small)") bytes once it is loaded (by $large lines), and $(calc %.0f "(${most[$large]} - ${most[$small]}) * 1048576 / ($large - $small)") while it is replaced."
  fi
) A user that a limit counts takes $(calc %.0f "(${grown[limits]} - ${grown[header]}) * 10.48576") bytes, and a session that is remembered $(calc %.0f "(${grown[sessions]} - ${grown[header]}) * 10.48576"), by 100,000 of each beside as many that are not kept (garbage included).
MD

docs=${DOCS:-$repo/docs}/sizing.md
{
  sed '/<!-- bench\/scale.sh: begin -->/q' "$docs"
  echo "On $(machine "$load" "rates, times and latency say little, and CPU time and memory more")."
  echo
  cat "$page"
  sed -n '/<!-- bench\/scale.sh: end -->/,$p' "$docs"
} >"$dir/new.md"
grep -q 'bench/scale.sh: end' "$dir/new.md" || { echo "$docs does not say where: it lacks the marks of bench/scale.sh" >&2; exit 1; }
cp "$dir/new.md" "$docs"
