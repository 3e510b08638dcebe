#!/usr/bin/env bash
# Tests what build.sh makes, as root on Debian: that it is the same bytes when it is built
# twice, lintian and Helm's lint, the image without an engine, and the packages in a Debian
# of its own that systemd-nspawn boots: installed as docs/install.md says, used behind
# nginx, upgraded while files are downloaded, removed and purged. That Debian stays in
# CACHE for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "test.sh: boots a Debian of its own, which takes root: sudo make test-packages" >&2; exit 1; }
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/securefiles}
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
root=$work/root
nspawn='' leader=''
stop() {
  if [[ -n $leader ]]; then kill -KILL "$leader" 2>/dev/null || true; fi
  if [[ -n $nspawn ]]; then wait "$nspawn" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

say() { printf '== %s\n' "$*"; }
fail() { printf 'FAIL: %s\n' "$*" >&2; exit 1; }
is() { [[ $2 == "$3" ]] || fail "$1: $2, want $3"; }
# soon waits for what takes a moment.
soon() {
  local what=$1 i
  shift
  for ((i = 0; i < 1200; i++)); do
    if "$@" &>/dev/null; then return; fi
    sleep 0.1
  done
  fail "$what"
}

say 'the same bytes when built twice, elsewhere'
VERSION=${VERSION:-$(scripts/version.sh)}
export VERSION
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
COMMIT=$(git rev-parse HEAD)
export SOURCE_DATE_EPOCH COMMIT
packaging/build.sh "$work/new"
mkdir -p "$work/elsewhere/tree"
git ls-files -z | xargs -0 cp --parents -t "$work/elsewhere/tree"
(umask 077 && TZ=Asia/Tokyo LANG=C.UTF-8 "$work/elsewhere/tree/packaging/build.sh" "$work/again")
diff <(cd "$work/new" && sha256sum -- *) <(cd "$work/again" && sha256sum -- *) || fail 'built twice, the packages differ'
made() { find "$work/new" -name "$1" | wc -l; }
is 'debs, rpms, images, lists, charts' "$(made '*.deb') $(made '*.rpm') $(made '*.oci.tar') $(made '*.cdx.json') $(made '*.tgz')" '2 2 2 2 1'
for file in "$work"/new/*.cdx.json; do
  grep -qF "\"version\": \"$VERSION\"" "$file" || fail "$file is of another version"
  for module in $(go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}' . | sort -u); do
    grep -qF "\"name\": \"$module\"" "$file" || fail "$file does not name $module"
  done
done
VERSION=0.0.0 ARCHES=$arch FORMATS='deb rpm' packaging/build.sh "$work/old"

say 'the image and the chart, by their own tests'
for module in packaging/image packaging/helm; do (cd "$module" && go vet ./... && go test -count=1 -timeout 30m ./...); done
go build -C packaging/helm -o "$work/helm" helm.sh/helm/v4/cmd/helm
"$work/helm" lint --strict "$work"/new/*.tgz
"$work/helm" show chart "$work"/new/*.tgz | grep -qF "appVersion: $VERSION" || fail 'the chart is of another version'

say lintian
lintian --no-cfg --allow-root --fail-on error,warning "$work"/new/*.deb

say 'a Debian of its own'
with=systemd,systemd-sysv,dbus,nginx-light,curl,openssl,logrotate,sudo,rpm
base=$cache/debian-bookworm-$arch-$(cksum <<<"$with" | cut -d' ' -f1).tar.gz
if [[ ! -f $base ]]; then
  mkdir -p "$cache"
  debootstrap --variant=minbase --include="$with" bookworm "$work/base" "${MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" ||
    { tail "$work/debootstrap.log" >&2; fail debootstrap; }
  tar -C "$work/base" -czf "$base.new" . && mv "$base.new" "$base"
  rm -rf "$work/base"
fi
mkdir "$root"
tar -C "$root" -xzf "$base"
mkdir "$root/packages"
cp "$work"/old/*_"$arch".deb "$root/packages/old.deb"
cp "$work"/new/*_"$arch".deb "$root/packages/new.deb"
machine=$(uname -m)
cp "$work"/old/*."$machine".rpm "$root/packages/old.rpm"
cp "$work"/new/*."$machine".rpm "$root/packages/new.rpm"
mkdir "$root/download"
cp "$work"/new/*_"$arch".deb "$root/download"

say 'the image, and nginx beside it, without an engine'
mkdir "$work/nginxroot"
tar -C "$work/nginxroot" -xzf "$base"
packaging/test-image.sh "$work/new/securefiles_${VERSION}_$arch.oci.tar" "$work/nginxroot"

say 'booting'
systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$root" --boot </dev/null &>"$work/boot.log" &
nspawn=$!
inside() { nsenter --target "$leader" --all -- /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
up() { # nspawn's first child only makes the second
  leader=$(pgrep -P "$nspawn" | head -n 1) && [[ -n $leader ]] && inside sh -c 'systemctl is-system-running | grep -qE "running|degraded"'
}
soon 'systemd is not up' up

get() { inside curl -s -w '%{http_code}' "${@:2}" "http://127.0.0.1/downloads$1" | tr '\n' ' '; }
answers() { [[ $(get "$2" "${@:3}") == "$1" ]]; }
# block NAME prints the block of docs/install.md that follows the comment <!-- NAME -->.
block() { awk -v name="<!-- $1 -->" '$0 == name { on = 1; next } on && /^```/ { if (within) exit; within = 1; next } within' docs/install.md; }

say "from the deb to a file of one's own, as docs/install.md says"
block deb >"$root/download/install.sh"
[[ -s $root/download/install.sh ]] || fail 'docs/install.md has no block for the deb'
started=$(date +%s%N)
inside bash -euxc 'cd /download && . ./install.sh' &>"$work/install.log" || { tail "$work/install.log" >&2; fail 'docs/install.md does not work'; }
soon 'alice gets no file of hers' answers 'for alice 200' /mine/a.txt -u alice:secret
is 'anonymous' "$(get /mine/a.txt -o /dev/null)" 401
took=$((($(date +%s%N) - started) / 10000000))
printf -v took '%d.%02d' $((took / 100)) $((took % 100))
say "from the deb to a guarded file of one's own: $took seconds"
((${took%.*} < 120)) || fail 'that is over two minutes'
inside dpkg -P securefiles
inside sh -c 'rm -r /etc/nginx/conf.d/site.conf /var/www/securefiles && systemctl reload nginx'

say 'installed'
inside dpkg -i /packages/old.deb
inside securefiles version | grep -qF 'securefiles 0.0.0 (' || fail "$(inside securefiles version)"
is 'running' "$(inside systemctl is-active securefiles.socket securefiles.service | xargs)" 'active active'
is 'enabled' "$(inside systemctl is-enabled securefiles.socket securefiles.service | xargs)" 'enabled enabled'
is 'owners' "$(inside stat -c '%n %U:%G %a' /etc/securefiles /etc/securefiles/policy.csv /etc/securefiles/users.htpasswd /run/securefiles/auth.sock | xargs)" \
  '/etc/securefiles root:securefiles 750 /etc/securefiles/policy.csv root:securefiles 640 /etc/securefiles/users.htpasswd root:securefiles 640 /run/securefiles/auth.sock securefiles:www-data 660'
is 'the directory for the state' "$(inside stat -c '%F %U:%G %a' /var/lib/securefiles)" 'directory securefiles:securefiles 700'
inside nginx -t
doc=$root/usr/share/doc/securefiles
for page in "$doc"/*.md "$doc"/docs/*.md; do
  for target in $(grep -o '](\([^)#: ]*\)[)#]' "$page" | sed 's/^](//; s/.$//' | sort -u); do
    [[ -e $(dirname "$page")/$target ]] || fail "$page links to $target, which the package lacks"
  done
done
[[ -e $doc/docs/how-to.md && -e $doc/examples/prometheus/job.yaml && -e $doc/examples/ci/github-actions.yaml ]] || fail 'pages or examples are missing'
is 'modes of documents' "$(find "$doc" -type f ! -perm 644 -o -type d ! -perm 755)" ''

say 'used'
inside sh -e <<'EOF'
mkdir -p /var/www/securefiles/public /var/www/securefiles/shared /var/www/securefiles/mine
echo 'for all' >/var/www/securefiles/public/a.txt
echo 'for users' >/var/www/securefiles/shared/a.txt
echo "alice's" >/var/www/securefiles/mine/a.txt
head -c 8M /dev/zero >/var/www/securefiles/mine/large
printf 'alice:%s\n' "$(openssl passwd -6 secret)" >>/etc/securefiles/users.htpasswd
printf 'p, alice, main, /mine/**, read, allow\n' >>/etc/securefiles/policy.csv
rm -f /etc/nginx/sites-enabled/default
cp /usr/share/securefiles/nginx/site.conf.example /etc/nginx/conf.d/site.conf
nginx -t
systemctl reload nginx
EOF
soon 'everybody may not read /public' answers 'for all 200' /public/a.txt
soon 'alice may not read /mine' answers "alice's 200" /mine/a.txt -u alice:secret
answers 'for users 200' /shared/a.txt -u alice:secret || fail 'alice may not read /shared'
is 'anonymous' "$(get /shared/a.txt -o /dev/null)" 401
is 'a wrong password' "$(get /mine/a.txt -o /dev/null -u alice:wrong)" 401

# under_load COMMAND… runs it while eight clients download, and a ninth a large file, slowly:
# before, meanwhile and after. Each must get each file whole.
under_load() {
  local loads=() i so_far before after
  rm -f "$root/packages/stop" "$work"/answers.*
  before=$(inside systemctl show -P MainPID securefiles.service)
  for i in 1 2 3 4 5 6 7 8; do
    inside sh -c 'until [ -e /packages/stop ]; do curl -s -o /dev/null -w "%{http_code} %{size_download}\n" -u alice:secret http://127.0.0.1/downloads/mine/a.txt; done' >"$work/answers.$i" &
    loads+=($!)
  done
  inside sh -c 'until [ -e /packages/stop ]; do curl -s -o /dev/null --limit-rate 2M -w "%{http_code} %{size_download}\n" -u alice:secret http://127.0.0.1/downloads/mine/large; done' >"$work/answers.large" &
  loads+=($!)
  some() { (($(cat "$work"/answers.[1-8] | wc -l) >= $1)); }
  soon 'nothing is downloaded' some 80
  "$@"
  so_far=$(cat "$work"/answers.[1-8] | wc -l)
  soon 'nothing is downloaded any more' some $((so_far + 80))
  inside touch /packages/stop
  wait "${loads[@]}"
  is 'answers to small downloads' "$(sort -u "$work"/answers.[1-8] | xargs)" '200 8'
  is 'answers to large downloads' "$(sort -u "$work/answers.large" | xargs)" '200 8388608'
  say "$(cat "$work"/answers.* | wc -l) downloads, none failed"
  after=$(inside systemctl show -P MainPID securefiles.service)
  [[ $after != "$before" && $(inside readlink "/proc/$after/exe") == /usr/bin/securefiles ]] || fail 'the old version is still running'
  inside securefiles version | grep -qF "securefiles $VERSION (commit $COMMIT, go" || fail "$(inside securefiles version)"
}

say 'upgraded while files are downloaded'
files='/etc/securefiles/policy.csv /etc/securefiles/users.htpasswd'
# shellcheck disable=SC2086 # two files
edited=$(inside sha256sum $files)
under_load inside dpkg -i /packages/new.deb
# shellcheck disable=SC2086
is 'what was edited' "$(inside sha256sum $files)" "$edited"
is 'owner' "$(inside stat -c '%U:%G %a' /etc/securefiles/policy.csv)" 'root:securefiles 640'

say 'what is stopped and disabled stays so'
inside systemctl disable --now securefiles.socket securefiles.service
inside dpkg -i /packages/new.deb
is 'stopped' "$(inside systemctl is-active securefiles.socket securefiles.service | xargs)" 'inactive inactive'
is 'disabled' "$(inside systemctl is-enabled securefiles.socket securefiles.service | xargs)" 'disabled disabled'
inside systemctl enable --now securefiles.socket securefiles.service

say 'a configuration, a state and logs of its own'
inside sh -e <<'EOF'
printf 'state: {file: /var/lib/securefiles/state.db}\nnginx:\n  delivery_log: /var/log/securefiles/delivery.log\n  access_log: /var/log/securefiles/access.log securefiles_access\n' >>/etc/securefiles/securefiles.yaml
securefiles nginx --http >/etc/nginx/securefiles-http.conf
securefiles nginx >/etc/nginx/securefiles-server.conf
sed -i 's|/usr/share/securefiles/nginx/\(.*\)\.conf|/etc/nginx/securefiles-\1.conf|' /etc/nginx/conf.d/site.conf
systemctl restart securefiles.service
nginx -t
systemctl reload nginx
EOF
is 'the state' "$(inside stat -c '%U:%G %a' /var/lib/securefiles/state.db)" 'securefiles:securefiles 600'
logged() { answers 'for all 200' /public/a.txt && inside test -s /var/log/securefiles/delivery.log; }
soon 'nothing is logged' logged
inside logrotate -f /etc/logrotate.conf
inside test -s /var/log/securefiles/delivery.log.1 || fail 'the log is not rotated'
soon 'nothing is logged after it was rotated' logged

say 'removed'
inside sh -c 'echo mine >/etc/securefiles/mine'
inside dpkg -r securefiles
inside test -e /etc/securefiles/mine -a -e /etc/securefiles/policy.csv -a -e /var/lib/securefiles/state.db -a ! -e /usr/bin/securefiles || fail 'a package that goes takes what is its own, and nothing else'
is 'a download without the service' "$(get /public/a.txt -o /dev/null)" 503
say 'purged'
inside dpkg -P securefiles
for file in /etc/securefiles /var/lib/securefiles /var/log/securefiles /run/securefiles /etc/logrotate.d/securefiles /usr/share/securefiles; do
  if inside test -e "$file"; then fail "$file is still there"; fi
done
if inside getent passwd securefiles || inside getent group securefiles; then fail 'the user is still there'; fi
left=$(inside find /etc /lib/systemd /var/lib -xdev -name '*securefiles*' -not -path '/etc/nginx/*')
is 'what is left' "$left" ''

say 'the rpm: installed, upgraded while files are downloaded, erased'
# On Debian rpm knows no dependencies; nginx's user is called as on Fedora.
inside sh -ec 'groupadd --system nginx && usermod -aG nginx www-data && rm -f /etc/nginx/conf.d/site.conf && systemctl restart nginx'
of_rpm() { inside rpm --nodeps --force-debian "$@"; }
of_rpm -i /packages/old.rpm
is 'owner of the policy' "$(inside stat -c '%U:%G %a' /etc/securefiles /etc/securefiles/policy.csv | xargs)" 'root:securefiles 750 root:securefiles 640'
inside sh -e <<'EOF'
systemctl enable --now securefiles.socket securefiles.service
printf 'alice:%s\n' "$(openssl passwd -6 secret)" >>/etc/securefiles/users.htpasswd
printf 'p, alice, main, /mine/**, read, allow\n' >>/etc/securefiles/policy.csv
cp /usr/share/securefiles/nginx/site.conf.example /etc/nginx/conf.d/site.conf
nginx -t
systemctl reload nginx
EOF
soon 'alice may not read /mine' answers "alice's 200" /mine/a.txt -u alice:secret
# shellcheck disable=SC2086
edited=$(inside sha256sum $files)
under_load of_rpm -U /packages/new.rpm
# shellcheck disable=SC2086
is 'what was edited' "$(inside sha256sum $files)" "$edited"
inside sh -c 'echo mine >/etc/securefiles/mine'
of_rpm -e securefiles
inside test -e /etc/securefiles/mine -a -e /etc/securefiles/policy.csv.rpmsave -a -d /var/lib/securefiles -a ! -e /usr/bin/securefiles || fail 'an rpm that goes takes what is its own, and nothing else'
is 'a download without the service' "$(get /public/a.txt -o /dev/null)" 503
say ok
