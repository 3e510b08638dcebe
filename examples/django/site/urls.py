from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.generic import TemplateView

from share import share
from whoami import whoami

urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html")),
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("share", share),
    path("securefiles/whoami", whoami),
]
