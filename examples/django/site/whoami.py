"""Tells securefiles who a session belongs to. Copy this view to your site."""
from django.http import HttpResponse, JsonResponse


def whoami(request):
    user = request.user
    if not user.is_authenticated:
        return HttpResponse(status=401)
    groups = user.groups.values_list("name", flat=True)
    return JsonResponse({"subject": user.get_username(), "groups": list(groups)})
