"""A small site with a login. Only what securefiles cares for is remarkable."""
import os
from pathlib import Path

BASE = Path(__file__).resolve().parent

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]  # 127.0.0.1: securefiles asks by this name
ROOT_URLCONF = "urls"
WSGI_APPLICATION = "wsgi.application"
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE / "db.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

SECUREFILES = os.environ.get("SECUREFILES", "http://127.0.0.1:8080")  # where nginx is: the view that shares asks there

LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"

# With https in front, as it should be:
# SESSION_COOKIE_NAME = "__Host-sessionid"  # and the same name in securefiles.yaml
# SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
