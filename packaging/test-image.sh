#!/usr/bin/env bash
# Runs examples/compose without an engine, as root: the image, unpacked, and an nginx
# below another root; the users, mounts and networks are those of compose.yaml.
#
#	test-image.sh IMAGE.oci.tar ROOT     # ROOT is a Debian with nginx
set -euo pipefail

if [[ ${3:-} != alone ]]; then # a network, mounts and processes of its own, which end with it
  exec unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$(realpath "$1")" "$(realpath "$2")" alone
fi
ip link set lo up
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work" 2>/dev/null || true' EXIT
chmod 755 "$work"
fail() { printf 'FAIL: %s\n' "$*" >&2; tail -n 20 "$work"/*.log >&2; exit 1; }
is() { [[ $2 == "$3" ]] || fail "$1: $2, want $3"; }

mkdir "$work"/{layout,image,site,socket,files} "$work/site/etc"
tar -C "$work/layout" -xf "$1"
layer=$(sed -n 's/.*"Layers":\["\([^"]*\)"\].*/\1/p' "$work/layout/manifest.json")
tar -C "$work/image" -xzf "$work/layout/$layer"
# A new volume gets the owner and the mode of the image's directory.
chown --reference="$work/image/run/securefiles" "$work/socket"
chmod --reference="$work/image/run/securefiles" "$work/socket"

# container ROOT USER[:GROUP] FROM:TO[:ro]… -- COMMAND… runs a command below a root that it
# may not write to.
container() {
  # shellcheck disable=SC2016 # the inner one expands it
  unshare --mount --propagation private -- bash -euo pipefail -c '
    root=$1 user=$2
    shift 2
    mount --bind "$root" "$root"
    while [[ $1 != -- ]]; do
      IFS=: read -r from to mode <<<"$1"
      shift
      if [[ $from == tmpfs ]]; then
        mount -t tmpfs -o mode=1777 tmpfs "$root$to"
      else
        mount --bind "$from" "$root$to"
        if [[ $mode == ro ]]; then mount -o remount,bind,ro "$root$to"; fi
      fi
    done
    shift
    mount -o remount,bind,ro "$root"
    exec setpriv --no-new-privs chroot --userspec="$user" "$root" "$@"' container "$@"
}
securefiles() { container "$work/image" "$@"; }

# docs/install.md
cd "$work/site"
chown 65532 etc
securefiles 65532:65532 "$PWD/etc:/etc/securefiles" -- /usr/bin/securefiles init /etc/securefiles
printf 'alice:%s\n' "$(openssl passwd -6 secret)" >>etc/users.htpasswd
printf 'p, alice, main, /mine/**, read, allow\n' >>etc/policy.csv
chgrp -R 101 etc
securefiles 65532:101 "$PWD/etc:/etc/securefiles:ro" -- /usr/bin/securefiles nginx --complete --container >nginx.conf
mkdir -p "$work"/files/{mine,public}
echo "alice's" >"$work/files/mine/a.txt"
echo 'for all' >"$work/files/public/a.txt"

if securefiles 65532:101 "$PWD/etc:/etc/securefiles:ro" -- /usr/bin/securefiles healthy 2>/dev/null; then fail 'healthy before it was started'; fi
securefiles 65532:101 "$PWD/etc:/etc/securefiles:ro" "$work/socket:/run/securefiles" -- /usr/bin/securefiles serve &>"$work/securefiles.log" &
service=$!
for ((i = 0; ; i++)); do
  if securefiles 65532:101 "$PWD/etc:/etc/securefiles:ro" -- /usr/bin/securefiles healthy 2>/dev/null; then break; fi
  ((i < 300)) || fail 'the service is not healthy'
  sleep 0.1
done
is 'the socket' "$(stat -c '%u:%g %a' "$work/socket/auth.sock")" '65532:101 660'

mkdir -p "$2/var/www/securefiles" "$2/run/securefiles"
: >"$work/nginx.log"
chown 101 "$work/nginx.log" # as an engine does: nginx opens /dev/stdout
container "$2" 101:101 /proc:/proc "tmpfs:/tmp" "$PWD/nginx.conf:/etc/nginx/nginx.conf:ro" "$work/files:/var/www/securefiles:ro" "$work/socket:/run/securefiles:ro" \
  -- nginx -e stderr -g 'daemon off;' &>>"$work/nginx.log" &
get() { curl -s -w '%{http_code}' "${@:2}" "http://127.0.0.1:8080/downloads$1" | tr '\n' ' '; }
for ((i = 0; ; i++)); do
  if [[ $(get /public/a.txt) == 'for all 200' ]]; then break; fi
  ((i < 300)) || fail "nothing is served: $(get /public/a.txt)"
  sleep 0.1
done
is 'alice' "$(get /mine/a.txt -u alice:secret)" "alice's 200"
is 'anonymous' "$(get /mine/a.txt -o /dev/null)" 401
is 'past the service' "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/protected/mine/a.txt)" 404
grep -q '"uri":"/downloads/mine/a.txt"' "$work/nginx.log" || fail 'nothing is logged'
printf 'p, @anyone, main, /mine/**, read, deny\n' >>etc/policy.csv
for ((i = 0; ; i++)); do
  if [[ $(get /mine/a.txt -o /dev/null -u alice:secret) == 404 ]]; then break; fi
  ((i < 300)) || fail 'an edit of the policy does not take effect'
  sleep 0.1
done

pkill -TERM -P "$service" -x securefiles || kill -TERM "$service"
wait "$service" || fail "the service ends with $?"
is 'a download without the service' "$(get /public/a.txt -o /dev/null)" 503
