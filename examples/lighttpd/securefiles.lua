-- What lighttpd tells the service, whatever the client sent: see securefiles.conf.
local r = lighty.r
local target = r.req_attr["request.orig-uri"]
local method = r.req_attr["request.method"]
-- lighttpd finds this place by a path that it has decoded and cleared up, and passes the target on as it came: one that
-- does not begin so would be another question to the service.
if string.sub(target, 1, 11) == "/downloads/" then
  if method ~= "GET" and method ~= "HEAD" then return 405 end
elseif target == "/_securefiles/link" then -- what people answer on the page of a link
  if method ~= "POST" then return 405 end
else
  return 404
end

local keep = {
  ["host"] = true, ["authorization"] = true, ["cookie"] = true, ["accept"] = true, ["accept-language"] = true,
  ["user-agent"] = true, ["referer"] = true, ["origin"] = true, ["sec-fetch-mode"] = true, ["sec-fetch-site"] = true,
  ["range"] = true, ["if-range"] = true, ["if-none-match"] = true, ["if-modified-since"] = true,
  ["if-match"] = true, ["if-unmodified-since"] = true, ["connection"] = true,
  ["content-type"] = true, ["content-length"] = true,
}
local others = {}
for name in pairs(r.req_header) do
  if not keep[string.lower(name)] then others[#others + 1] = name end
end
for _, name in ipairs(others) do r.req_header[name] = "" end

r.req_header["X-Original-URI"]    = target
r.req_header["X-Original-Method"] = method
r.req_header["X-Original-Scheme"] = r.req_attr["uri.scheme"]
r.req_header["X-Real-IP"]         = r.req_attr["request.remote-addr"]
-- With proxy_secret_file:
-- r.req_header["X-Securefiles-Proxy-Secret"] = "THE SECRET"
return 0
