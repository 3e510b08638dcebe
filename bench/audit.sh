#!/usr/bin/env bash
# What the audit trail costs a guarded download, end to end: the same service and nginx,
#
#   none      without a record
#   file      a record of each decision (audit.file)
#   fsync     the same, on the disk before the answer (durability: fsync)
#   all       decisions, nginx's log of deliveries followed, all of it chained
#
# Medians of the rates and of each round's ratios are printed, and the CPU time a request,
# which a busy machine changes less.
#
#   ROUNDS=15 DURATION=3 ./bench/audit.sh
set -euo pipefail

rounds=9 duration=3
variants=(none file fsync all)

PORT=${PORT:-19380}
source "$(dirname "$0")/lib.sh"

build public
for v in "${variants[@]}"; do
  starter "$dir/$v"
  mkdir "$dir/$v/logs" # away from the configuration, whose directory the service watches
  case $v in
  file) echo "audit: {file: $dir/$v/logs/audit.jsonl}" ;;
  fsync) echo "audit: {file: $dir/$v/logs/audit.jsonl, durability: fsync}" ;;
  all)
    "$dir/securefiles" audit key bench 2>/dev/null >"$dir/$v/audit.key"
    echo "audit: {file: $dir/$v/logs/audit.jsonl, chain: {key_file: audit.key}}"
    echo "nginx: {delivery_log: $dir/$v/logs/delivery.log, access_log: 'off'}"
    ;;
  esac >>"$dir/$v/securefiles.yaml"
  serve "$v" "$dir/$v/securefiles.yaml"
  printed "$dir/$v/securefiles.yaml" >"$dir/$v.conf"
  front "$v" /downloads/public/1k.bin
done
settle() { if [[ $1 == all ]]; then sleep 1; fi; } # it reads what nginx has written

all_serve
measure
for v in "${variants[@]}"; do printf '%-6s %8.0f requests/s   CPU a request, nginx and service: %5.1f µs\n' "$v" "$(of "$v" rates)" "$(both "$v")"; done
printf 'file / none   %.2f   (target: at least 0.85)\n' "$(ratio file none)"
printf 'fsync / none  %.2f\n' "$(ratio fsync none)"
printf 'all / none    %.2f   (target: at least 0.70)\n' "$(ratio all none)"
printf 'file / none   %s   by CPU time\nall / none    %s   by CPU time\n' "$(by_cpu file none)" "$(by_cpu all none)"
# What was recorded is what was served.
"$dir/securefiles" audit verify --config "$dir/all/securefiles.yaml" | head -n 1
