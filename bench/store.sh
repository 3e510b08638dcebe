#!/usr/bin/env bash
# What securefiles costs a download from a bucket, beside nginx's own proxy to the same
# bucket, which asks nobody:
#
#   proxy     proxy_pass to the store, with the same buffers and connections kept open
#   service   what `securefiles nginx` prints, which asks securefiles and then the store
#
# Three objects: one of LARGE MiB, by one curl at a time; one of 16 KiB that the store
# begins to send after DELAY, as stores at a distance do, and one that it sends at once,
# both by wrk. The store is a small server in Go on this machine (bench/bucket) that sends
# files by sendfile(2) and verifies no signature: it is to be no bottleneck, and what it
# verifies costs neither nginx nor the service anything. Medians of each round's ratios are
# printed, and the CPU time of nginx and of the service.
#
#   ROUNDS=9 DURATION=5 ./bench/store.sh
set -euo pipefail

rounds=7 duration=3
large=${LARGE:-1024} delay=${DELAY:-20ms}
variants=(proxy service)

PORT=${PORT:-19480}
source "$(dirname "$0")/lib.sh"

build public/files
bytes=16384
mkdir -p "$dir/bucket/files/public"
head -c "$bytes" /dev/zero | tr '\0' x | tee "$dir/bucket/files/public/small.bin" >"$dir/bucket/files/public/small.late"
head -c "${large}M" /dev/zero >"$dir/bucket/files/public/large.bin"
(cd "$repo" && go build -o "$dir/store" ./bench/bucket)
free && store=$port
"$dir/store" "127.0.0.1:$store" "$dir/bucket" "$delay" 2>"$dir/store.log" &
pids+=($!)

starter "$dir/service"
sed -i "s|^    root: .*|    storage: {s3: {bucket: files, endpoint: 'http://127.0.0.1:$store'}}|" "$dir/service/securefiles.yaml"
export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench
serve service "$dir/service/securefiles.yaml"
printed "$dir/service/securefiles.yaml" >"$dir/service.conf"
cat >"$dir/proxy.conf" <<END
$(sed '/# securefiles, for http/,$d' "$dir/service.conf")
    access_log off;
    upstream store { server 127.0.0.1:$store; keepalive 16; keepalive_timeout 15s; }
    server {
        listen 127.0.0.1:8080;
        location /downloads/ {
            proxy_pass http://store/files/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
            proxy_buffer_size 16k;
            proxy_buffers 8 16k;
            proxy_busy_buffers_size 32k;
        }
    }
}
END
for v in "${variants[@]}"; do front "$v" /downloads/public/small.bin; done
all_serve

# object NAME has it be asked for from now on.
object() {
  local v
  for v in "${variants[@]}"; do url[$v]=${url[$v]%/*}/$1; done
  rm -f "$dir"/*.rates "$dir"/*.nginx "$dir"/*.asked "$dir"/*.beside
}
# told WHAT TARGET prints what was measured.
told() {
  local v
  for v in "${variants[@]}"; do
    printf '%-8s %10.1f %s   CPU: nginx %7.1f µs, service %5.1f µs\n' "$v" "$(of "$v" rates)" "$1" "$(of "$v" nginx)" "$(of "$v" asked)"
  done
  printf 'service / proxy %.3f   %s\n\n' "$(ratio service proxy)" "$2"
}

echo "== $large MiB, one download at a time"
object large.bin
for ((round = 0; round <= rounds; round++)); do # the first warms
  line="round $round:"
  for v in "${variants[@]}"; do
    n=$(used "$(worker "$v")") a=$(used "${asked[$v]:-}")
    got=$(curl -sf -H "$authorization" -o /dev/null -w '%{speed_download} %{size_download}' "${url[$v]}")
    [[ ${got#* } == $((large * 1048576)) ]] || { echo "$v sent $got" >&2; exit 1; }
    r=$(awk "BEGIN { print ${got% *} / 1048576 }")
    line+=" $v $r"
    ((round)) || continue
    echo "$r" >>"$dir/$v.rates"
    echo $(($(used "$(worker "$v")") - n)) >>"$dir/$v.nginx"
    echo $(($(used "${asked[$v]:-}") - a)) >>"$dir/$v.asked"
  done
  ((round)) && echo "$line MiB/s"
done
told MiB/s '(target: at least 0.95)'

echo "== 16 KiB, from a store that answers after $delay, 32 at a time"
object small.late
measure
told requests/s '(target: at least 0.90)'

echo "== 16 KiB, from a store that answers at once, 32 at a time: the processors are busy"
object small.bin
measure
told requests/s ''
