package state

import "github.com/redis/go-redis/v9"

// What Redis does in one go. Times are microseconds of its own clock, and what is of limits
// has an end by it. What is of links stays until forget, for a clock of Redis that is put
// ahead would open what was used up or revoked. Keys that a script makes out of what it
// reads have the hash tag of those that it is given.

// luaNow is the time; ARGV[1] stands in its place in tests.
const luaNow = `
local now = tonumber(ARGV[1])
if not now then local t = redis.call('TIME'); now = t[1] * 1000000 + t[2] end
local function whole(n) return string.format('%.0f', n) end
local function ms(us) return whole(math.max(1, math.ceil(us / 1000))) end
local day = 86400000000
local function span(limit, period, cost) -- see span of package state
  local most = 100 * 366 * day
  return math.min(math.max(period / limit * cost, -most), most)
end
`

// luaEpoch says whether the store is the one that was known, or one that came after it:
// ARGV[2] and ARGV[3] are the epoch and how much was kept in it, as they were seen last.
const luaEpoch = luaNow + `
local e = redis.call('HMGET', KEYS[1], 'id', 'n', 'revision', 'format')
local id, n, revision = tonumber(e[1] or ''), tonumber(e[2] or '0'), tonumber(e[3] or '0')
local function known()
  if e[4] and e[4] ~= '` + formatVersion + `' then return -4 end
  if not id then return -2 end
  if id < tonumber(ARGV[2]) or id == tonumber(ARGV[2]) and n < tonumber(ARGV[3]) then return -3 end
  return 0
end
`

// reserve: KEYS are the request's reservation and the counts. ARGV: the time, the lease,
// how long a request is known that has nothing to settle, and
// one that has, its owner, whether it has an id; then kind,
// limit, period, cost and observe of each. It answers with over, remaining, reset and
// retry of each.
var reserveScript = redis.NewScript(luaNow + `
local lease, window, wait, owner, named = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6] == '1'
local out = {}
local function answer(over, remaining, reset, retry)
  out[#out + 1] = over; out[#out + 1] = remaining; out[#out + 1] = reset; out[#out + 1] = retry
end
if named then
  local old = redis.call('GET', KEYS[1])
  if old then
    for _, one in ipairs(cmsgpack.unpack(old)) do answer(one[6], one[7], one[8], one[9]) end
    return out
  end
end
local tats, places, row = {}, {}, {}
for i = 2, #KEYS do
  local key, a = KEYS[i], 7 + (i - 2) * 5
  local kind, limit, period, cost = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local over, remaining, reset, retry = 0, 0, 0, 0
  if kind ~= 0 then window = wait end
  if kind == 2 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
    remaining = math.max(0, limit - redis.call('ZCARD', key))
    if remaining == 0 then over = 1 else remaining = remaining - 1; places[#places + 1] = key end
  else
    local tat = math.max(now, tats[key] or tonumber(redis.call('GET', key) or '0'))
    if kind == 0 and tat > now + period then -- the clock was put back
      tat = now + period
      redis.call('SET', key, whole(tat), 'PX', ms(period))
    end
    local after = tat + span(limit, period, cost)
    if after - now > period and tat > now then
      over, retry, after = 1, math.min(after - now - period, tat - now), tat
    end
    tats[key], reset = after, after - now
    remaining = math.max(0, math.floor((period - reset) / period * limit + 1e-6))
  end
  answer(over, remaining, math.ceil(reset), math.ceil(retry))
  if over == 1 and ARGV[a + 4] == '0' then
    while #out < 4 * (#KEYS - 1) do answer(0, 0, 0, 0) end
    return out
  end
  local at = #out - 3
  row[#row + 1] = {kind, key, limit, period, cost, out[at], out[at + 1], out[at + 2], out[at + 3]}
end
for key, tat in pairs(tats) do
  if tat > now then redis.call('SET', key, whole(tat), 'PX', ms(tat - now)) end
end
for _, key in ipairs(places) do
  redis.call('ZADD', key, whole(now + lease), owner)
  redis.call('PEXPIRE', key, ms(lease))
end
if named then redis.call('SET', KEYS[1], cmsgpack.pack(row), 'PX', ms(window)) end
return out
`)

// look: KEYS are the counts. ARGV: the time; then kind, limit and period of each. It answers
// as reserve does, and takes nothing.
var lookScript = redis.NewScript(luaNow + `
local out = {}
for i, key in ipairs(KEYS) do
  local a = 2 + (i - 1) * 3
  local kind, limit, period = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local over, reset, remaining, retry = 0, 0, 0, 0
  if kind == 2 then
    remaining = math.max(0, limit - redis.call('ZCOUNT', key, '(' .. whole(now), '+inf'))
    if remaining == 0 then over = 1 end
  else
    reset = math.max(0, tonumber(redis.call('GET', key) or '0') - now)
    if kind == 0 then reset = math.min(reset, period) end
    if reset > period then over, retry = 1, reset - period end
    remaining = math.max(0, math.floor((period - reset) / period * limit + 1e-6))
  end
  out[#out + 1] = over; out[#out + 1] = remaining; out[#out + 1] = math.ceil(reset); out[#out + 1] = math.ceil(retry)
end
return out
`)

// settle: KEYS is the request's reservation. ARGV: the time, the request, and its bytes;
// less than none give everything back.
var settleScript = redis.NewScript(luaNow + `
local bytes = tonumber(ARGV[3])
local kept = redis.call('GET', KEYS[1])
if not kept then return 0 end
redis.call('DEL', KEYS[1])
for _, one in ipairs(cmsgpack.unpack(kept)) do
  local kind, key, limit, period, cost, over = unpack(one)
  if over == 1 then cost = 0 elseif kind == 1 and bytes >= 0 then cost = cost - bytes elseif bytes >= 0 and kind == 0 then cost = 0 end
  if kind == 2 then
    if over == 0 then redis.call('ZREM', key, ARGV[2]) end
  elseif cost ~= 0 then
    local tat = math.max(now, tonumber(redis.call('GET', key) or '0')) - span(limit, period, cost)
    if tat > now then redis.call('SET', key, whole(tat), 'PX', ms(tat - now)) else redis.call('DEL', key) end
  end
end
return 1
`)

// use: KEYS are the epoch, the link's uses, where the request is looked up, and when all uses
// are over. ARGV: the time, the epoch twice; then max, the link's end, client, sure, request, continues, look,
// the window, and the link. It answers with 1, 0, or what is wrong with the epoch; what is
// left; and the epoch.
var useScript = redis.NewScript(luaEpoch + `
local max, untilt, client, sure, request = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7] == '1', ARGV[8]
local continues, look, window, link = ARGV[9] == '1', ARGV[10] == '1', tonumber(ARGV[11]), ARGV[12]
local wrong = known()
if wrong < 0 then return {wrong, 0, id or 0, n} end
local list = redis.call('LRANGE', KEYS[2], 0, -1)
local left = math.max(0, max - #list)
local function keep(ok, left)
  redis.call('PERSIST', KEYS[2]) -- versions before gave it an end
  redis.call('ZADD', KEYS[4], whole(untilt), link)
  redis.call('SET', KEYS[3], link, 'PX', ms(window))
  n = redis.call('HINCRBY', KEYS[1], 'n', 1)
  return {ok, left, id, n}
end
for i, text in ipairs(list) do
  list[i] = cjson.decode(text)
  -- The web server asks again. That is written once more, so that replicas are waited for.
  if request ~= '' and list[i].r == request then return keep(1, left) end
end
for i, one in ipairs(list) do
  if one.c == client and one.s == sure and now - tonumber(one.l) < window and (sure or continues or one.x) then
    if look then return {1, left, id, n} end
    one.l = whole(now)
    if not continues then one.r = request; one.x = false end
    redis.call('LSET', KEYS[2], i - 1, cjson.encode(one))
    return keep(1, left)
  end
end
if left == 0 then return {0, 0, id, n} end
if look then return {1, left, id, n} end
redis.call('RPUSH', KEYS[2], cjson.encode({c = client, s = sure, l = whole(now), r = request, x = false}))
return keep(1, left - 1)
`)

// short: KEYS is where the request is looked up. ARGV: the time, the request, and what the
// keys of uses begin with.
var shortScript = redis.NewScript(luaNow + `
local link = redis.call('GET', KEYS[1])
if not link then return 0 end
local key = ARGV[3] .. link
for i, text in ipairs(redis.call('LRANGE', key, 0, -1)) do
  local one = cjson.decode(text)
  if one.r == ARGV[2] and not one.x then
    one.x = true
    redis.call('LSET', key, i - 1, cjson.encode(one))
    return 1
  end
end
return 0
`)

// revoke: KEYS are the epoch, all revocations, that of one link, and when those are over.
// ARGV: the time, the link's end, the link, the revocation where it is of more than one, and
// how many there may be.
var revokeScript = redis.NewScript(luaNow + `
local untilt = tonumber(ARGV[2])
if ARGV[4] == '' then
  untilt = math.max(untilt, tonumber(redis.call('GET', KEYS[3]) or '0'))
  redis.call('SET', KEYS[3], whole(untilt))
  redis.call('ZADD', KEYS[4], whole(untilt), ARGV[3])
else
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 0 end
  redis.call('ZADD', KEYS[2], whole(untilt), ARGV[4])
  redis.call('PERSIST', KEYS[2]) -- versions before gave it an end
  redis.call('HINCRBY', KEYS[1], 'revision', 1)
end
redis.call('HINCRBY', KEYS[1], 'n', 1)
return 1
`)

// revoked: KEYS are the epoch and the revocation of the link. ARGV: the time, the epoch
// twice. It answers with whether the link is revoked or what is wrong with the epoch, the
// epoch, the revision of the other revocations, and the time.
var revokedScript = redis.NewScript(luaEpoch + `
local code = known()
if code == 0 and redis.call('EXISTS', KEYS[2]) == 1 then code = 1 end
return {code, id or 0, n, revision, whole(now)}
`)

// link: KEYS are the link and the index. ARGV: the time, the link, its end, its id, whether
// it is made here, and how many there may be.
var linkScript = redis.NewScript(luaNow + `
if ARGV[5] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], whole(tonumber(ARGV[3])), ARGV[4])
redis.call('PERSIST', KEYS[2]) -- versions before gave it an end
return 1
`)

// forget: KEYS are the epoch, the revocations of more than one link, and indexes by when
// what is in them is over. ARGV: the time, that of the service, how much at a time, and then
// what the keys of each index begin with. What both times say to be over goes; it answers
// with whether there may be more.
var forgetScript = redis.NewScript(luaNow + `
local over, most, more = whole(math.min(now, tonumber(ARGV[2]))), tonumber(ARGV[3]), 0
if redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', over) > 0 then redis.call('HINCRBY', KEYS[1], 'revision', 1) end
for i = 3, #KEYS do
  local some = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', over, 'LIMIT', 0, most)
  for _, id in ipairs(some) do
    redis.call('DEL', ARGV[i + 1] .. id)
    redis.call('ZREM', KEYS[i], id)
  end
  if #some == most then more = 1 end
end
return more
`)

// restoreCount: KEYS is the count. ARGV: the time, and when all is there again. The later
// of two such times counts.
var restoreCountScript = redis.NewScript(luaNow + `
local tat = tonumber(ARGV[2])
if tat > math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0')) then redis.call('SET', KEYS[1], whole(tat), 'PX', ms(tat - now)) end
return 1
`)

// restoreUses: KEYS are the epoch, the link's uses, and when all uses are over. ARGV: the
// time, the link's end, the link, and the uses as they are kept. Those that are known are not
// added.
var restoreUsesScript = redis.NewScript(luaNow + `
local known = {}
for _, text in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  local one = cjson.decode(text)
  known[one.r .. ' ' .. one.c] = true
end
for i = 4, #ARGV do
  local one = cjson.decode(ARGV[i])
  if not known[one.r .. ' ' .. one.c] then redis.call('RPUSH', KEYS[2], ARGV[i]) end
end
redis.call('PERSIST', KEYS[2])
redis.call('ZADD', KEYS[3], whole(math.max(tonumber(ARGV[2]), tonumber(redis.call('ZSCORE', KEYS[3], ARGV[3]) or '0'))), ARGV[3])
redis.call('HINCRBY', KEYS[1], 'n', 1)
return 1
`)

// accept: KEYS is the epoch. ARGV: the time, the epoch that was known, a secret, and the
// format.
var acceptScript = redis.NewScript(luaNow + `
local id = math.max(now, tonumber(ARGV[2]) + 1, tonumber(redis.call('HGET', KEYS[1], 'id') or '0') + 1)
redis.call('HSET', KEYS[1], 'id', whole(id), 'format', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSETNX', KEYS[1], 'secret', ARGV[3])
return id
`)
