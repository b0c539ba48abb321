"""The Lua scripts that write the online store, one run per batch: batches are written atomically.

Of an id the newest version stays, of a set the newest members, and every figure is summed up anew from what stays. None
of that depends on the order or number of writes: a bound drops only what newer ids push out, and those never leave
again (a retracted session stays, as a tombstone). So any replay, in any order, leaves the same contents.

A user's keys are built from prefixes, as a batch has hundreds of users. ALERTS, SESSIONS and ORDERS write what is a
user's and what all share; ALERTS_OF_PART and so on the first alone, for a cluster (`transforms/io/redis_cluster.py`):
their KEYS are the users', which they do not look at.

Numbers are doubles: times, versions and counts stay below 2^53; money is summed in two parts.

Long, as the scripts share their functions about users.
"""

from __future__ import annotations

from typing import Final

from schemas import currencies
from schemas.times import LAST_MS

__all__ = [
    "ADOPT",
    "ALERTS",
    "ALERTS_OF_PART",
    "FRESHNESS",
    "LEDGER",
    "ORDERS",
    "ORDERS_OF_PART",
    "REVENUE",
    "SESSIONS",
    "SESSIONS_OF_PART",
    "WITHOUT_ALL",
    "WITH_ALL",
]

# What a script that begins with this writes, too: what all share.
WITH_ALL: Final = "local with_all = true\n"
WITHOUT_ALL: Final = "local with_all = false\n"

FRESHNESS = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- An event from the future is as fresh as now, and what is stored of one gives way.
local function fresh(hash, family, newest)
  newest = math.min(newest, now)
  local stored = tonumber(redis.call('HGET', hash, family) or 0)
  if newest > 0 and (stored < newest or stored > now) then
    redis.call('HSET', hash, family, string.format('%.0f', newest))
  end
end
"""

_EXPONENTS = ", ".join(f"{code}={digits}" for code, digits in currencies.EXPONENTS.items() if digits != 2)

_USERS = (
    FRESHNESS
    + f"\nlocal LAST_MS, LIRA = {LAST_MS}, '{currencies.DEFAULT}'\nlocal exponents = {{{_EXPONENTS}}}\n"
    + r"""
local ttl = ARGV[1]
local features_of, alerts_of, alert_ids_of = ARGV[2], ARGV[3], ARGV[4]
local sessions_of, session_ids_of, orders_of, json_of, shop = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local escapes = {
  ['"'] = '\\"', ['\\'] = '\\\\', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t'
}
local function text(value)
  return '"' .. string.gsub(value, '[%z\1-\31"\\]', function(c)
    return escapes[c] or string.format('\\u%04x', string.byte(c))
  end) .. '"'
end

local function amount(minor, currency)
  local digits = exponents[currency] or 2
  if digits == 0 then return minor end
  minor = string.rep('0', digits + 1 - #minor) .. minor
  return string.sub(minor, 1, -digits - 1) .. '.' .. string.sub(minor, -digits)
end

-- The civil date of a day since 1970, counted in eras of 400 years that begin on 1 March.
local dates = {}
local function date(days)
  local shifted = days + 719468
  local day = shifted % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + math.floor(shifted / 146097) * 400 + (month <= 2 and 1 or 0)
  dates[days] = string.format('"%04d-%02d-%02dT', year, month, day)
  return dates[days]
end

local function time(ms)
  ms = math.min(ms, LAST_MS)
  local rest = ms % 86400000
  local days = (ms - rest) / 86400000
  return (dates[days] or date(days)) .. string.format('%02d:%02d:%02d.%03dZ"',
    rest / 3600000, rest / 60000 % 60, rest / 1000 % 60, rest % 1000)
end

-- The user's features as the API returns them: `features.user_features_json`, byte for byte.
local function tell(user)
  local seen, orders_1h, orders_24h, spend, ordered, session, alerts, kind, alerted, old_1h, old_24h = unpack(
    redis.call('HMGET', features_of .. user, 'last_seen', 'orders_1h', 'orders_24h', 'spend_minor', 'last_order_at',
      'last_session', 'alerts', 'last_alert_type', 'last_alert_at', 'spend_1h_minor', 'spend_24h_minor'))
  if not (seen or ordered or session or alerted) then return end  -- nothing but retracted sessions
  if not spend and old_24h then spend = LIRA .. ' ' .. old_1h .. ' ' .. old_24h end
  local hour, day, every = '0', '0', {}
  for currency, of_hour, of_day in string.gmatch(spend or '', '(%u+) (%d+) (%d+)') do
    if currency == shop then hour, day = of_hour, of_day end
    every[#every + 1] = '"' .. currency .. '":{"spend_1h":' .. amount(of_hour, currency) ..
      ',"spend_24h":' .. amount(of_day, currency) .. '}'
  end
  redis.call('SET', json_of .. user, table.concat({
    '{"user_id":', text(user), ',"last_seen":', seen and time(seen) or 'null',
    ',"orders_1h":', orders_1h or '0', ',"spend_1h":', amount(hour, shop),
    ',"orders_24h":', orders_24h or '0', ',"spend_24h":', amount(day, shop),
    ',"currency":"', shop, '","spend_by_currency":{', table.concat(every, ','), '}',
    ',"last_order_at":', ordered and time(ordered) or 'null', ',"last_session":', session or 'null',
    ',"alerts":', alerts or '0', ',"last_alert_type":', kind and text(kind) or 'null',
    ',"last_alert_at":', alerted and time(alerted) or 'null', '}'
  }), 'EX', ttl)
end

-- Together, so that a sum never outlives what it is summed from: a late replay would begin it anew.
local function keep(user)
  for i = 2, 7 do redis.call('EXPIRE', ARGV[i] .. user, ttl) end
  tell(user)
end

-- No valid event is a day ahead. What an older release has stored of one gives way to the first that is not.
local far = now + 86400000
local function seen(user, at)
  local stored = tonumber(redis.call('HGET', features_of .. user, 'last_seen') or 0)
  if at > 0 and (stored < at or (stored > far and at <= far)) then
    redis.call('HSET', features_of .. user, 'last_seen', string.format('%.0f', at))
  end
end

-- Makes a member of `set` the one of its id, when its version is newer; the one before leaves `set` and `shared` sets.
-- `before` is the score of the one before, nil for that version. Returns whether it did.
local function replace(set, ids, shared, id_field, id, version, score, before, member)
  local stored = redis.call('HGET', ids, id)
  if stored then
    if tonumber(stored) >= tonumber(version) then return false end
    before = before or stored
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', set, before, before)) do
      if cjson.decode(old)[id_field] == id then
        redis.call('ZREM', set, old)
        for _, other in ipairs(shared) do redis.call('ZREM', other, old) end
      end
    end
  end
  redis.call('HSET', ids, id, version)
  redis.call('ZADD', set, score, member)
  return true
end

-- Forgets the oldest members of `set` beyond `most`, everywhere.
local function bound(set, ids, shared, id_field, most)
  while redis.call('ZCARD', set) > most do
    local old = redis.call('ZPOPMIN', set)[1]
    redis.call('HDEL', ids, cjson.decode(old)[id_field])
    for _, other in ipairs(shared) do redis.call('ZREM', other, old) end
  end
end
"""
)

# In the scripts about users ARGV begins with the TTL in s, `Keys.of_user` and the shop's currency, here "of
# users".
# KEYS: recent, freshness, log. ARGV: of users, per user, recent, family, logged, then per alert: user, id, event time,
# JSON.
_ALERTS: Final = (
    _USERS
    + """
local per_user, recent, family, logged = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12], ARGV[13]
local shared, users, newest = with_all and {KEYS[1]} or {}, {}, 0
for i = 14, #ARGV, 4 do
  local user, id, at, json = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3]
  if replace(alerts_of .. user, alert_ids_of .. user, shared, 'alert_id', id, at, at, nil, json) then
    for _, set in ipairs(shared) do redis.call('ZADD', set, at, json) end
    bound(alerts_of .. user, alert_ids_of .. user, shared, 'alert_id', per_user)
    if with_all then
      if redis.call('ZSCORE', alerts_of .. user, json) then  -- else a replay of what was pushed out would be news
        redis.call('XADD', KEYS[3], 'MAXLEN', '~', logged, '*', 'alert', json)
      end
    end
  end
  users[user] = math.max(users[user] or 0, tonumber(at))
  newest = math.max(newest, tonumber(at))
end
for user, at in pairs(users) do
  local last = redis.call('ZRANGE', alerts_of .. user, -1, -1, 'WITHSCORES')
  redis.call('HSET', features_of .. user, 'alerts', redis.call('ZCARD', alerts_of .. user),
    'last_alert_type', cjson.decode(last[1]).alert_type, 'last_alert_at', last[2])
  seen(user, at)
  keep(user)
end
if not with_all then return end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -recent - 1)
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ttl) end
fresh(KEYS[2], family, newest)
redis.call('EXPIRE', KEYS[2], ttl)
"""
)
ALERTS: Final = WITH_ALL + _ALERTS
ALERTS_OF_PART: Final = WITHOUT_ALL + _ALERTS

# KEYS: recent, open, freshness. ARGV: of users, per user, recent, family, then per session: user, id, start, end (0
# when retracted), version, '1' when it is open, JSON.
_SESSIONS: Final = (
    _USERS
    + """
local per_user, recent, family = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local shared, users, newest = with_all and {KEYS[1], KEYS[2]} or {}, {}, 0
for i = 13, #ARGV, 7 do
  local user, id, start, ended, version, open, json = unpack(ARGV, i, i + 6)
  if replace(sessions_of .. user, session_ids_of .. user, shared, 'session_id', id, version, start, start, json) then
    for i, set in ipairs(shared) do  -- the second has those in progress
      if i == 1 or open == '1' then redis.call('ZADD', set, start, json) end
    end
    bound(sessions_of .. user, session_ids_of .. user, shared, 'session_id', per_user)
  end
  users[user] = math.max(users[user] or 0, tonumber(ended))
  newest = math.max(newest, tonumber(ended))
end
for user, at in pairs(users) do
  local rank, last = -1
  repeat
    last = redis.call('ZRANGE', sessions_of .. user, rank, rank)[1]
    rank = rank - 1
  until not last or not cjson.decode(last).deleted
  if last then
    redis.call('HSET', features_of .. user, 'last_session', last)
  else
    redis.call('HDEL', features_of .. user, 'last_session')
  end
  seen(user, at)
  keep(user)
end
if not with_all then return end
local over = redis.call('ZCARD', KEYS[1]) - recent
if over > 0 then
  local out = redis.call('ZPOPMIN', KEYS[1], over)
  for i = 1, #out, 2 do redis.call('ZREM', KEYS[2], out[i]) end
end
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ttl) end
fresh(KEYS[3], family, newest)
redis.call('EXPIRE', KEYS[3], ttl)
"""
)
SESSIONS: Final = WITH_ALL + _SESSIONS
SESSIONS_OF_PART: Final = WITHOUT_ALL + _SESSIONS

# KEYS: freshness. ARGV: of users, per user, an hour, a day in ms, family, then per order: user, id, event time, amount,
# currency, region.
_ORDERS: Final = (
    _USERS
    + """
local per_user, hour, day, family = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13]

-- Amounts have up to 19 digits: the last nine are summed apart from the others. A sum of each currency.
local function add(sums, currency, minor)
  local sum = sums[currency] or {high = 0, low = 0}
  sums[currency] = sum
  sums.orders = sums.orders + 1
  sum.high = sum.high + (tonumber(string.sub(minor, 1, -10)) or 0)
  sum.low = sum.low + tonumber(string.sub(minor, -9))
end
local function digits(sum)
  if not sum then return '0' end
  local high, low = sum.high + math.floor(sum.low / 1e9), sum.low % 1e9
  if high > 9223372036 or (high == 9223372036 and low > 854775807) then return '9223372036854775807' end
  if high == 0 then return string.format('%.0f', low) end
  return string.format('%.0f%09.0f', high, low)
end

local users, newest = {}, 0
for i = 14, #ARGV, 6 do
  local user, id, at, minor, currency, region = unpack(ARGV, i, i + 5)
  if tonumber(at) <= far and not users[user] then
    redis.call('ZREMRANGEBYSCORE', orders_of .. user, string.format('(%.0f', far), '+inf')
  end
  redis.call('ZADD', orders_of .. user, 'GT', at, minor .. '|' .. currency .. '|' .. id .. '\\0' .. region)
  users[user] = true
  newest = math.max(newest, tonumber(at))
end
for user in pairs(users) do
  local key = orders_of .. user
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', tonumber(last) - day))
  redis.call('ZREMRANGEBYRANK', key, 0, -per_user - 1)
  local in_hour, in_day, codes = {orders = 0}, {orders = 0}, {}
  local kept, counted = redis.call('ZREVRANGE', key, 0, -1, 'WITHSCORES'), {}
  for i = 1, #kept, 2 do
    local minor, currency, id = string.match(kept[i], '^(%d+)|(%u+)|([^%z]*)')
    if not minor then  -- of a release that knew no currencies
      minor, id = string.match(kept[i], '^(%d+):(.*)$')
      currency = LIRA
    end
    if not counted[id] then  -- an order_id counts once, also when it came with two amounts
      counted[id] = true
      if not in_day[currency] then codes[#codes + 1] = currency end
      add(in_day, currency, minor)
      if tonumber(kept[i+1]) >= tonumber(last) - hour then add(in_hour, currency, minor) end
    end
  end
  table.sort(codes)
  for i, currency in ipairs(codes) do
    codes[i] = currency .. ' ' .. digits(in_hour[currency]) .. ' ' .. digits(in_day[currency])
  end
  redis.call('HSET', features_of .. user, 'orders_1h', in_hour.orders, 'orders_24h', in_day.orders,
    'spend_minor', table.concat(codes, ';'), 'last_order_at', last)
  seen(user, tonumber(last))
  keep(user)
end
if not with_all then return end
fresh(KEYS[1], family, newest)
redis.call('EXPIRE', KEYS[1], ttl)
"""
)
ORDERS: Final = WITH_ALL + _ORDERS
ORDERS_OF_PART: Final = WITHOUT_ALL + _ORDERS

# KEYS: currencies, freshness. ARGV: TTL in s, minutes of a currency, prefixes of a minute's key and of the list of
# minutes, family, TTL of freshness, then per row: currency, start, field, version, value.
REVENUE: Final = (
    FRESHNESS
    + """
local ttl, most, minute_of, minutes_of, family = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local newest, currencies = 0, {}
for i = 7, #ARGV, 5 do
  local currency, start, field, version, value = unpack(ARGV, i, i + 4)
  local minute = minute_of .. currency .. ':' .. start
  local stored = redis.call('HGET', minute, field)
  if not stored or tonumber(string.match(stored, '^%S+')) < tonumber(version) then
    redis.call('HSET', minute, field, value)
  end
  redis.call('EXPIRE', minute, ttl)
  redis.call('ZADD', minutes_of .. currency, start, start)
  currencies[currency] = math.max(currencies[currency] or 0, tonumber(start))
end
for currency, start in pairs(currencies) do
  local minutes = minutes_of .. currency
  local over = redis.call('ZCARD', minutes) - most
  if over > 0 then
    local out = redis.call('ZPOPMIN', minutes, over)
    for i = 1, #out, 2 do redis.call('DEL', minute_of .. currency .. ':' .. out[i]) end
  end
  redis.call('EXPIRE', minutes, ttl)
  redis.call('ZADD', KEYS[1], 'GT', start, currency)
  newest = math.max(newest, start)
end
redis.call('EXPIRE', KEYS[1], ttl)
fresh(KEYS[2], family, newest)
redis.call('EXPIRE', KEYS[2], ARGV[6])
"""
)

# Minutes of a release that knew no currencies become those of one; what this release has written meanwhile stays.
# KEYS: the old list of minutes, the currencies. ARGV: prefixes of a minute's key and of the list of minutes, currency.
ADOPT: Final = """
local minute_of, minutes_of, currency = ARGV[1], ARGV[2], ARGV[3]
local old = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, start in ipairs(old) do
  local minute = minute_of .. currency .. ':' .. start
  if redis.call('EXISTS', minute_of .. start) == 1 and redis.call('RENAMENX', minute_of .. start, minute) == 1 then
    redis.call('ZADD', minutes_of .. currency, start, start)
    redis.call('ZADD', KEYS[2], 'GT', start, currency)
  end
end
if #old > 0 then
  local ttl = redis.call('TTL', KEYS[1])
  for _, key in ipairs({minutes_of .. currency, KEYS[2]}) do
    if redis.call('TTL', key) < ttl then redis.call('EXPIRE', key, ttl) end
  end
  redis.call('DEL', KEYS[1])
end
return #old
"""

# A ledger replaces an older one: of an earlier run, or of this run with fewer records in.
# KEYS: ledger. ARGV: TTL in s, start of the run in ms, records in, then name and value of the other fields.
LEDGER: Final = """
local run, total = unpack(redis.call('HMGET', KEYS[1], 'run_ms', 'in'))
if run and (tonumber(run) > tonumber(ARGV[2]) or (run == ARGV[2] and tonumber(total) > tonumber(ARGV[3]))) then
  return 0
end
redis.call('DEL', KEYS[1])  -- an earlier run may have had fields that this one has not
redis.call('HSET', KEYS[1], 'run_ms', ARGV[2], 'in', ARGV[3], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
