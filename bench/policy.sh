#!/usr/bin/env bash
# What a decision costs by the number of policy lines, beside the stock Casbin
# enforcer in the same run; then lines that only their ends tell apart, loading,
# and decisions while a million lines are replaced.
#
#   COUNT=5 ./bench/policy.sh
#
# The benchmarks run COUNT times, with one and with two goroutines; benchstat
# prints medians. On a machine that has other work, cpu-ns/op says more than the
# clock. It takes a quarter of an hour, most of it stock Casbin's.
set -euo pipefail
cd "$(dirname "$0")/.."

count=${COUNT:-3}
out=$(mktemp)
trap 'rm -f "$out" "$out.medians"' EXIT

go test -run '^$' -bench '^Benchmark(Decide|Stock)$' -cpu 1,2 -count "$count" -benchtime 1s -timeout 2h ./policy | tee "$out"
go tool benchstat -table '' -col .name "$out"

# Medians of the CPU time, by benchmark.
awk '/^Benchmark/ { for (i = 3; i < NF; i++) if ($(i + 1) == "cpu-ns/op") print $1, $i }' "$out" | sort -k1,1 -k2,2g |
  awk '{ if ($1 != name) { if (n) print name, v[int((n + 1) / 2)]; name = $1; n = 0 } v[++n] = $2 } END { print name, v[int((n + 1) / 2)] }' >"$out.medians"
echo
echo "By CPU time: what a decision costs beside one of stock Casbin at ten lines."
awk '{ cost[$1] = $2 }
END {
  for (name in cost) {
    if (name !~ /^BenchmarkDecide.*lines=(10|1000000)\//) continue
    stock = name
    sub(/Decide/, "Stock", stock)
    sub(/lines=1000000/, "lines=10", stock)
    printf "%-55s %8.0f ns   1/%.0f of stock at ten lines\n", name, cost[name], cost[stock] / cost[name]
  }
}' "$out.medians" | sort

echo
go test -run '^$' -bench '^Benchmark(Alike|Load|Reload)$' -benchtime 3x -timeout 1h ./policy
