"""Makes a link that somebody without an account can open. Copy this view to your site."""
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.views.decorators.http import require_POST


@require_POST
@login_required
def share(request):
    link = {"path": request.POST["path"], "ttl": 7 * 24 * 3600, "uses": 3,
            "groups": list(request.user.groups.values_list("name", flat=True))}  # the link shows them: those that the policy needs
    session = f"{settings.SESSION_COOKIE_NAME}={request.COOKIES[settings.SESSION_COOKIE_NAME]}"
    ask = Request(f"{settings.SECUREFILES}/_securefiles/links", json.dumps(link).encode(),
                  {"Content-Type": "application/json", "Cookie": session})
    try:
        with urlopen(ask, timeout=5) as answer:
            return JsonResponse(json.load(answer), status=201)
    except HTTPError as refused:
        return JsonResponse({"detail": refused.reason}, status=refused.code)
    except OSError:
        return JsonResponse({"detail": "securefiles does not answer"}, status=503)
