#!/usr/bin/env bash
# Django, securefiles and nginx on loopback, with sample users and files.
# Ctrl-C stops all three and leaves nothing behind.
#
#   make build && ./examples/django/run.sh
#
# It needs nginx, and a python3 with Django: PYTHON names another one. The
# addresses can be set too: WEB, DJANGO, SECUREFILES_LISTEN, SECUREFILES_ADMIN.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=${BINARY:-$here/../../bin/securefiles}
python=${PYTHON:-python3}
web=${WEB:-127.0.0.1:8080}
django=${DJANGO:-127.0.0.1:8000}
[[ -x $binary ]] || { echo "build first: make build" >&2; exit 1; }
"$python" -c 'import django' 2>/dev/null || {
  echo "$python has no Django: apt-get install python3-django, and set PYTHON=/usr/bin/python3" >&2
  exit 1
}

dir=${DIR:-$(mktemp -d "${TMPDIR:-/tmp}/securefiles-django.XXXXXX")}
pids=()
stop() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [[ -n ${DIR:-} ]] || rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Files to download, and users: alice is a project_member, bob is not.
mkdir -p "$dir"/{run,logs} "$dir"/files/{public,shared,project/hr}
echo "Anyone may read this."            >"$dir/files/public/welcome.txt"
echo "Everyone with a login may."       >"$dir/files/shared/handbook.txt"
echo "The plan, for project members."   >"$dir/files/project/plan.txt"
echo "Salaries: nobody's business."     >"$dir/files/project/hr/salaries.txt"
chmod 755 "$dir" # as root, nginx's workers run as another user

SECRET_KEY=$(openssl rand -hex 32)
export SECRET_KEY DATABASE=$dir/db.sqlite3 PYTHONDONTWRITEBYTECODE=1
manage() { "$python" "$here/site/manage.py" "$@"; }
manage migrate --verbosity 0
manage shell <<'PYTHON'
from django.contrib.auth.models import Group, User
group = Group.objects.create(name="project_member")
User.objects.create_user("alice", password="alice").groups.add(group)
User.objects.create_user("bob", password="bob")
PYTHON

# The files of this directory, with this run's addresses.
export SECUREFILES_LISTEN=${SECUREFILES_LISTEN:-unix:$dir/run/auth.sock}
cp "$here"/{securefiles.yaml,policy.csv} "$dir"
export SECUREFILES_DOWNLOADS_0_ROOT=$dir/files
export SECUREFILES_IDENTITY_0_SESSION_URL=http://$django/securefiles/whoami
export SECUREFILES_LINKS_SITE=http://$web SECUREFILES=http://$web
config=(--config "$dir/securefiles.yaml")
"$binary" link key new "${config[@]}"
"$binary" check "${config[@]}"
"$binary" nginx --http "${config[@]}" >"$dir/securefiles-http.conf"
"$binary" nginx "${config[@]}" >"$dir/securefiles-server.conf"
sed -e "s|127.0.0.1:8080|$web|" -e "s|127.0.0.1:8000|$django|" "$here/nginx.conf" >"$dir/nginx.conf"

"$python" "$here/site/manage.py" runserver --noreload "$django" >"$dir/logs/django.log" 2>&1 &
pids+=($!)
"$binary" serve "${config[@]}" >"$dir/logs/securefiles.log" 2>&1 &
pids+=($!)
nginx -p "$dir" -e logs/error.log -c "$dir/nginx.conf" -g 'daemon off;' 2>>"$dir/logs/nginx.log" &
pids+=($!)

for ((deadline = SECONDS + 60; ; )); do # a busy machine takes its time
  if [[ $EUID == 0 && -S $dir/run/auth.sock ]]; then chmod 666 "$dir/run/auth.sock"; fi # as root, nginx's workers run as another user
  if curl -fso /dev/null "http://$web/accounts/login/" && curl -fso /dev/null "http://$web/downloads/public/welcome.txt"; then break; fi
  if ((SECONDS > deadline)); then
    echo "the example did not start:" >&2
    cat "$dir"/logs/*.log >&2
    exit 1
  fi
  sleep 0.1
done
cat <<END

Open http://$web/ and log in as alice (password alice) or bob (bob).

Put bob into the group, and within 30 seconds he may read the plan:

  echo 'from django.contrib.auth.models import *; User.objects.get(username="bob").groups.add(Group.objects.get())' |
    SECRET_KEY=x DATABASE=$dir/db.sqlite3 $python $here/site/manage.py shell

The button makes a link to the plan, which opens three times without a login.

Press Ctrl-C to stop.
END
wait -n "${pids[@]}"
echo "one of the three stopped:" >&2
cat "$dir"/logs/*.log >&2
exit 1
