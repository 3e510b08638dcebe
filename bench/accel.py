# The Django site that bench/page.sh compares with: it looks the session, its user and a
# group up, as applications do, and has nginx send the file by X-Accel-Redirect.
# `python3 accel.py` makes the database $BENCH_DATABASE and prints a cookie.
import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="bench", ALLOWED_HOSTS=["*"], ROOT_URLCONF="accel", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCH_DATABASE"]}},
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def download(request, path):
    if not request.user.groups.filter(name="staff").exists():
        return HttpResponse(status=403)
    return HttpResponse(headers={"X-Accel-Redirect": "/protected/" + path})


urlpatterns = [path("downloads/<path:path>", download)]
application = get_wsgi_application()

if __name__ == "__main__":
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import Group, User
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    alice = User.objects.create_user("alice")
    alice.groups.add(Group.objects.create(name="staff"))
    session = SessionStore()
    session[SESSION_KEY] = str(alice.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = alice.get_session_auth_hash()
    session.create()
    print("Cookie: sessionid=" + session.session_key)
