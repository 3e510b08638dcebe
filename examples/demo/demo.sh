#!/usr/bin/env bash
# A running example: nginx, securefiles and a bucket on loopback, sample files, a policy.
# Ctrl-C stops all and leaves nothing behind. Run it with `make demo`, or as
# demo.sh BINARY BUCKET. Where there is no nginx, securefiles sends the files itself, and
# there is no bucket.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
binary=${1:-$repo/bin/securefiles}
bucket=${2:-$repo/bin/demo-bucket}
[[ -x $binary && -x $bucket ]] || { echo "build first: make demo does" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/securefiles-demo.XXXXXX")
pids=()
stop() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# free PORT prints the first port from PORT on that nobody listens on.
free() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}
web=$(free 8080)
admin=$(free 9181)
socket=$dir/run/auth.sock

"$binary" init "$dir" >/dev/null
mkdir -p "$dir"/{run,logs} "$dir"/files/{public,shared,project/hr}
echo "Anyone may read this."                  >"$dir/files/public/welcome.txt"
echo "Everyone with a password may read this." >"$dir/files/shared/handbook.txt"
echo "The plan, for editors."                 >"$dir/files/project/plan.txt"
echo "Salaries: nobody's business."           >"$dir/files/project/hr/salaries.txt"
for user in alice bob; do
  printf '%s:%s\n' "$user" "$(openssl passwd -6 "$user")" >>"$dir/users.htpasswd"
done
sed -i -e "s|/run/securefiles/auth.sock|$socket|" -e "s|127.0.0.1:9181|127.0.0.1:$admin|" \
  -e "s|/var/www/securefiles|$dir/files|" "$dir/securefiles.yaml"

cat >>"$dir/securefiles.yaml" <<END
audit: {file: $dir/logs/audit.jsonl}
nginx: {delivery_log: $dir/logs/delivery.log, access_log: off}
END
# What links need: keys, a place for what was revoked, and the right to make them for who may read the project.
printf 'links: {keys_file: link-keys.json, site: "http://127.0.0.1:%s"}\nstate: {file: state.db}\nadmin_token_file: admin-token\n' "$web" >>"$dir/securefiles.yaml"
(umask 077 && openssl rand -hex 32 >"$dir/admin-token")
"$binary" link key new --config "$dir/securefiles.yaml" >/dev/null
sed -i '/^p,.*\/project\/\*\*,.*read, allow/{p;s/read, allow/share, allow/}' "$dir/policy.csv"

# Beside the directory, a bucket: another download, for which the policy has lines of its own.
if command -v nginx >/dev/null; then
  store=$(free 9000)
  mkdir -p "$dir"/bucket/{reports,board}
  echo "The report of 2025, out of a bucket." >"$dir/bucket/reports/2025.txt"
  echo "Minutes of the board."                >"$dir/bucket/board/minutes.txt"
  key=demo secret=$(openssl rand -hex 20)
  AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret "$bucket" "127.0.0.1:$store" archive "$dir/bucket" 2>"$dir/logs/bucket.log" &
  pids+=($!)
  (umask 077 && printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" >"$dir/bucket-credentials")
  sed -i "/^downloads:/a\\
  - name: archive\\
    url: /archive/\\
    internal: /protected-archive/\\
    storage: {s3: {bucket: archive, endpoint: 'http://127.0.0.1:$store', credentials_file: bucket-credentials}}" "$dir/securefiles.yaml"
  cat >>"$dir/policy.csv" <<END
p, @authenticated, archive, /reports/**,      read, allow
p, editor,         archive, /board/**,        read, allow
END
fi

"$binary" nginx --complete --config "$dir/securefiles.yaml" |
  sed "s|127.0.0.1:8080|127.0.0.1:$web|" >"$dir/nginx.conf"
chmod 755 "$dir" # as root, nginx's workers run as another user
if command -v nginx >/dev/null; then
  running="securefiles, nginx and a bucket are running" direct=()
  nginx -p "$dir" -e logs/error.log -c "$dir/nginx.conf" -g 'daemon off;' 2>>"$dir/logs/nginx.log" &
  pids+=($!)
else
  running="securefiles is running, without nginx: it sends the files itself" direct=(--direct --listen "127.0.0.1:$web")
fi
"$binary" serve ${direct[@]+"${direct[@]}"} --config "$dir/securefiles.yaml" >"$dir/logs/securefiles.log" 2>&1 &
pids+=($!)

for ((deadline = SECONDS + 60; ; )); do # a busy machine takes its time
  if curl -fso /dev/null "http://127.0.0.1:$admin/readyz" && curl -so /dev/null "http://127.0.0.1:$web/" && curl -so /dev/null "http://127.0.0.1:${store:-$web}/"; then break; fi
  if ((SECONDS > deadline)); then
    echo "the demo did not start:" >&2
    cat "$dir"/logs/*.log >&2
    exit 1
  fi
  sleep 0.1
done

if ((EUID == 0)) && [[ -S $socket ]]; then chmod 666 "$socket"; fi # as root, nginx's workers run as another user

url=http://127.0.0.1:$web/downloads archive=http://127.0.0.1:$web/archive
cat <<END

$running. In another terminal, paste:

  curl -i $url/public/welcome.txt                      # 200: anyone
  curl -i $url/project/plan.txt                        # 401: who are you?
  curl -i -u alice:alice $url/project/plan.txt         # 200: alice is an editor
  curl -i -u bob:bob     $url/project/plan.txt         # 404: bob is not, and learns nothing
  curl -i -u alice:alice $url/project/hr/salaries.txt  # 404: a deny line wins
  curl -i -u alice:alice -r 4-7 $url/project/plan.txt  # 206: nginx serves ranges
$(if [[ -v store ]]; then cat <<STORED

Another download has its files in a bucket, and lines of its own in the same policy. nginx gets
them there by a URL that the service signs for one object, and the bucket verifies it:

  curl -i -u alice:alice $archive/board/minutes.txt       # 200: alice is an editor
  curl -i -u bob:bob     $archive/board/minutes.txt       # 404: bob is not
  curl -i -u bob:bob     $archive/reports/2025.txt        # 200: everyone with a password
  curl -i -u bob:bob -r 4-9 $archive/reports/2025.txt     # 206: ranges, from the bucket
  curl -i -u bob:bob     $archive/shared/handbook.txt     # 404: that line is about the directory
  curl -i http://127.0.0.1:$store/archive/reports/2025.txt         # 403: the bucket gives nothing to whoever has no signature
  grep -E '^(p|g),' $dir/policy.csv
STORED
fi)

Why? Ask the policy:

  $binary explain --config $dir/securefiles.yaml bob /downloads/project/plan.txt

Make bob an editor, and ask again; it takes effect within a second:

  echo 'g, bob, editor' >> $dir/policy.csv; sleep 1
  curl -i -u bob:bob $url/project/plan.txt             # 200

Who got the plan in the last 90 days, and how much of it? What did bob download today?

  $binary audit --config $dir/securefiles.yaml --path /project/plan.txt --since 90d --by subject
  $binary audit --config $dir/securefiles.yaml --subject bob --since today --by path

Send the plan to somebody without an account, and take it back:

  $binary link create --config $dir/securefiles.yaml /downloads/project/plan.txt --as alice > $dir/link
  curl -i "\$(cat $dir/link)"                           # 200: whoever has it
  $binary link revoke --config $dir/securefiles.yaml "\$($binary link list --config $dir/securefiles.yaml | awk 'END { print \$1 }')"
  curl -i "\$(cat $dir/link)"                           # 410: it was revoked

Metrics and health:

  curl -s http://127.0.0.1:$admin/metrics | grep ^securefiles_
  curl -s http://127.0.0.1:$admin/readyz

Everything is in $dir
Press Ctrl-C to stop; the directory goes with it.
END
wait -n "${pids[@]}"
echo "it stopped:" >&2
cat "$dir"/logs/*.log >&2
exit 1
