#!/usr/bin/env bash
# What it costs to find out who asks, beside a header that nginx sets. Each
# source has a service and an nginx of its own, which serve the file to the same user:
#
#   header    a user and groups that nginx sets
#   basic     HTTP Basic, a password that has been verified before
#   es256     a token (JWT) that has been verified before, by an elliptic key
#   rs256     the same, by an RSA key
#   session   a cookie that the application has been asked about before
#
# Medians of the rates and of each round's ratios are printed, and the CPU time a
# request of nginx and of the service, which a busy machine changes less.
#
#   ROUNDS=9 DURATION=5 ./bench/identity.sh
set -euo pipefail

rounds=9 duration=3
variants=(header basic es256 rs256 session)

PORT=${PORT:-19180}
source "$(dirname "$0")/lib.sh"

build project
(cd "$repo" && go build -o "$dir/token" ./bench/token)
printf 'alice:%s\n' "$(openssl passwd -6 alice)" >"$dir/users.htpasswd"
printf 'p, alice, /project/**, read, allow\n' >"$dir/policy.csv"
es256=$("$dir/token" ES256 "$dir/es256.json")
rs256=$("$dir/token" RS256 "$dir/rs256.json")
token="{issuer: bench, audience: [files], groups_claim: realm_access.roles"
free && application=$port

declare -A identity=(
  [header]="{header: X-Remote-User, groups_header: X-Remote-Groups, nginx_value: \$bench_user, nginx_groups_value: \$bench_groups}"
  [basic]="{htpasswd: users.htpasswd, remember: 1h}"
  [es256]="{jwt: $token, jwks_file: es256.json}}"
  [rs256]="{jwt: $token, jwks_file: rs256.json}}"
  [session]="{session: {url: 'http://127.0.0.1:$application/', cookies: [sessionid], remember: 5m}}"
)
credentials=(
  [header]="Accept: */*"
  [basic]=$authorization
  [es256]="Authorization: Bearer $es256"
  [rs256]="Authorization: Bearer $rs256"
  [session]="Cookie: sessionid=3vh5m0dwq1g8nq7n5v0t3x7c2k9e4r6y"
)
# The application, and the variables of the header source, are nginx's own.
application_conf="server { listen 127.0.0.1:$application; default_type application/json; return 200 '{\"subject\":\"alice\",\"groups\":[\"staff\",\"sales\",\"offline_access\"]}'; }"
variables='map "" $bench_user { default alice; } map "" $bench_groups { default "staff, sales, offline_access"; }'

for s in "${variants[@]}"; do
  free && service=$port
  free && admin=$port
  cat >"$dir/$s.yaml" <<EOF
listen: 127.0.0.1:$service
admin: 127.0.0.1:$admin
downloads: [{name: main, url: /downloads/, internal: /protected/, root: $dir/files}]
policy: {file: policy.csv}
identity: [${identity[$s]}]
EOF
  serve "$s" "$dir/$s.yaml"
  printed "$dir/$s.yaml" >"$dir/$s.conf"
  if [[ $s == header ]]; then sed -i "s|^http {|http { $variables|" "$dir/$s.conf"; fi
  if [[ $s == session ]]; then sed -i "s|^http {|http { $application_conf|" "$dir/$s.conf"; fi
  front "$s" /downloads/project/1k.bin
done

all_serve
measure
for s in "${variants[@]}"; do
  printf '%-8s %6.0f requests/s, / header %.2f (target: at least 0.80)   CPU a request: nginx %5.1f µs, service %5.1f µs\n' \
    "$s" "$(of "$s" rates)" "$(ratio "$s" header)" "$(of "$s" nginx)" "$(of "$s" asked)"
done
