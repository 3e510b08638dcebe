# Sourced by the benchmarks. Each serves the same 1 KiB file by several variants, each
# an nginx with one worker and what it asks. wrk (1 thread, 32 connections) asks one
# after the other, ROUNDS times for DURATION seconds each, so that a busy moment of the
# machine hits all of them. The machine should have nothing else to do. With ROUNDS=0 a
# script only checks that all serve the file.
#
# Needs nginx, curl, openssl, wrk and Go.

rounds=${ROUNDS:-${rounds:?}} duration=${DURATION:-${duration:?}}
repo=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:/usr/sbin:/sbin

# By variant: what is asked for, with which header, and the processes: nginx, what that
# asks, and what that asks in turn, if anything.
declare -A url credentials nginx asked beside
authorization="Authorization: Basic $(printf alice:alice | base64)"

dir=$(mktemp -d "${TMPDIR:-/tmp}/securefiles-bench.XXXXXX")
pids=()
stop() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

# free finds a port, from PORT on, that nobody listens on.
next=${PORT:?}
free() {
  while (exec 3<>"/dev/tcp/127.0.0.1/$next") 2>/dev/null; do next=$((next + 1)); done
  port=$next
  next=$((next + 1))
}

# build FOLDER makes the binary, and the file that is served, in a folder of its root.
build() {
  (cd "$repo" && go build -o "$dir/securefiles" .)
  chmod 755 "$dir" # as root, nginx's workers run as another user
  mkdir -p "$dir/files/$1"
  head -c 1024 /dev/zero | tr '\0' x >"$dir/files/$1/1k.bin"
}

# starter DIRECTORY has a configuration with the starter policy in it, and alice.
starter() {
  mkdir -p "$1"
  "${binary:-$dir/securefiles}" init "$1" >/dev/null
  printf 'alice:%s\n' "$(openssl passwd -6 alice)" >>"$1/users.htpasswd"
  free && service=$port
  free && admin=$port
  sed -i -e "s|unix:/run/securefiles/auth.sock|127.0.0.1:$service|" -e "s|127.0.0.1:9181|127.0.0.1:$admin|" -e "s|/var/www/securefiles|$dir/files|" "$1/securefiles.yaml"
}

# many_lines N prints so many lines of policy, a tenth as many users, each with three of 10,000 roles
# that lie in each other: 0.31 role links to a line.
many_lines() {
  awk -v lines="$1" 'BEGIN {
    for (i = 0; i < lines; i++) printf "p, role%d, /team%d/project%d/**, read, allow\n", i % 10000, i % 1000, i / 1000
    for (i = 1; i < 10000 && i < lines; i++) printf "g, role%d, role%d\n", i, (i - 1) / 10
    for (i = 0; i < lines / 10; i++) for (k = 0; k < 3; k++) printf "g, user%d, role%d\n", i, (i * 7 + k * 3001) % (lines < 10000 ? lines : 10000)
  }'
}

# machine LOAD WORTH says what measures, with which load before, and what is worth less beside other work.
machine() {
  echo "$(nproc) cores ($(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)), $(awk '$1 == "MemTotal:" { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB, Linux $(uname -r), $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), load $1 before$(awk "BEGIN { if ($1 >= 1) print \": where that was other work, which had the cores too, $2\" }")"
}

# serve VARIANT CONFIGURATION starts the service; binary, if it is set, is another one
# than the one that was built, for starter and printed too.
serve() {
  "${binary:-$dir/securefiles}" serve --config "$2" 2>"$dir/$1.log" &
  pids+=($!) asked[$1]=$!
}

# printed CONFIGURATION prints nginx's, with one worker and no log of its own.
printed() {
  "${binary:-$dir/securefiles}" nginx --complete --config "$1" |
    sed -e 's|^worker_processes.*|worker_processes 1;|' -e 's|access_log logs/.*|access_log off;|'
}

# front VARIANT PATH starts nginx with the configuration VARIANT.conf; the file is there.
front() {
  free
  mkdir -p "$dir/nginx-$1/run" "$dir/nginx-$1/logs"
  sed -i "s|listen 127.0.0.1:8080|listen 127.0.0.1:$port|" "$dir/$1.conf"
  nginx -p "$dir/nginx-$1" -e logs/error.log -c "$dir/$1.conf" -g 'daemon off;' 2>/dev/null &
  pids+=($!) nginx[$1]=$! url[$1]=http://127.0.0.1:$port$2
}

# all_serve waits until each variant does, bytes of it, 1024 if a script says nothing. It
# is the end where there are no rounds.
all_serve() {
  local v deadline size
  for v in "${variants[@]}"; do
    for ((deadline = SECONDS + 60; ; )); do
      size=$(curl -sf -H "${credentials[$v]:-$authorization}" "${url[$v]}" | wc -c) || true
      ((size == ${bytes:-1024})) && break
      ((SECONDS < deadline)) || { echo "$v does not serve the file: $(tail -n 2 "$dir"/*.log "$dir/nginx-$v"/logs/*)" >&2; exit 1; }
      sleep 0.1
    done
  done
  ((rounds)) || { echo "all serve the file"; exit 0; }
}

# rate VARIANT SECONDS prints requests a second.
rate() {
  local out
  out=$(wrk -t1 -c32 -d"$2s" -H "${credentials[$1]:-$authorization}" "${url[$1]}")
  if grep -q 'Non-2xx\|Socket errors' <<<"$out"; then
    echo "$1: $out" >&2
    return 1
  fi
  awk '/^Requests\/sec/ { print $2 }' <<<"$out"
}

# used PID prints the CPU time that it used, in microseconds (proc(5)); 0 where there is none.
used() {
  if [[ -z $1 ]]; then echo 0; return; fi
  sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) * 1000000 / hz }'
}
worker() { cut -d' ' -f1 "/proc/${nginx[$1]}/task/${nginx[$1]}/children"; }

# settle VARIANT waits for what a variant has to do yet after a round; a script may say.
settle() { :; }

# measure writes, by variant and round, the rate, and the CPU time a request of the
# processes, to VARIANT.rates, VARIANT.nginx, VARIANT.asked and VARIANT.beside.
measure() {
  local v round line n a b r
  for v in "${variants[@]}"; do rate "$v" 1 >/dev/null; done # warm
  for ((round = 1; round <= rounds; round++)); do
    line="round $round:"
    # In another order each time: who comes after whom makes a difference.
    for v in $(shuf -e "${variants[@]}"); do
      n=$(used "$(worker "$v")") a=$(used "${asked[$v]:-}") b=$(used "${beside[$v]:-}")
      r=$(rate "$v" "$duration")
      settle "$v"
      echo "$r" >>"$dir/$v.rates"
      awk "BEGIN { print ($(used "$(worker "$v")") - $n) / ($r * $duration) }" >>"$dir/$v.nginx"
      awk "BEGIN { print ($(used "${asked[$v]:-}") - $a) / ($r * $duration) }" >>"$dir/$v.asked"
      awk "BEGIN { print ($(used "${beside[$v]:-}") - $b) / ($r * $duration) }" >>"$dir/$v.beside"
      line+=" $v $r"
    done
    echo "$line"
  done
  echo
  echo "$(nproc) cores, $(nginx -v 2>&1 | sed 's/.*: //'), $(go version | cut -d' ' -f3), $rounds rounds of ${duration}s"
}

median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# of VARIANT WHAT is the median of its rates, nginx, asked or beside.
of() { median <"$dir/$1.$2"; }
# ratio VARIANT OTHER is the median of the ratios of their rates in one round.
ratio() { paste "$dir/$1.rates" "$dir/$2.rates" | awk '{ print $1 / $2 }' | median; }
# both VARIANT is the median of the CPU time of nginx and what is asked together.
both() { paste "$dir/$1.nginx" "$dir/$1.asked" "$dir/$1.beside" | awk '{ print $1 + $2 + $3 }' | median; }
# by_cpu VARIANT OTHER is how their CPU times compare, as rates do.
by_cpu() { awk "BEGIN { printf \"%.2f\", $(both "$2") / $(both "$1") }"; }
