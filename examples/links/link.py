# Makes a link with PyJWT (Debian: python3-jwt):  python3 link.py link-keys.json MAKER PATH
import json, secrets, sys, time
from urllib.parse import quote

import jwt

keys, maker, path = sys.argv[1:]
with open(keys) as file:
    key = json.load(file)["keys"][-1]
now = int(time.time())
claims = {"jti": secrets.token_hex(12), "sub": maker, "aud": "main", "path": path, "iat": now, "exp": now + 3600}
token = jwt.encode(claims, jwt.PyJWK(key).key, algorithm=key["alg"], headers={"kid": key["kid"], "typ": "securefiles-link+jwt"})
print(f"/downloads{quote(path)}?link={token}")
