-- Take from several limits, or from none; and give back what is not needed any more. One call, all or nothing.
--
-- KEYS[1]       who is alive: a sorted set, holder → until when (milliseconds)
-- KEYS[2]       what the asker's questions did whose answers it may not have heard: a hash, number → see close.lua
-- KEYS[3..]     a hash for each limit and caller. All keys carry one hash tag: they lie on one node of a cluster.
-- ARGV[1], [2]  who asks, and for how many milliseconds it counts as alive from now on
-- ARGV[3]       the question's number; 0: nothing of it need be remembered
-- ARGV[4], [5]  numbers from … to which are answered since the last time
-- ARGV[6..]     ten for each limit:
--   kind        window, day, week, month, streams, flow
--   amount      of the limit; of a flow the burst
--   period_ms   of a window; of a flow the milliseconds in which one unit flows off
--   need        units that must be had
--   sure, want  units that calls are waiting for, as many as are left; units that would be had beyond, for later calls
--   back        units that come back; below 0: that were used without having been had
--   back_end    the window's end that they belong to
--   is_held     1: what is granted is held by the asker, and free again when the asker dies; always so for streams
--   freed       units that the asker holds no more; below 0: that it holds, and has not said so
--
-- Returns how many are alive, below 0 where the asker was not among them; and for each limit: granted (-1: it refused, and
-- nobody is granted anything), left, milliseconds until its reset, the window's end.
-- The time is the store's own, so that gateways' clocks do not matter. Numbers are whole below 2^53, which Lua keeps exactly.

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local holder, living, done = ARGV[1], KEYS[1], KEYS[2]
if redis.call('HEXISTS', done, 'over') == 1 then return redis.error_reply('OVER its asker has gone') end
local is_new = redis.call('ZADD', living, now + ARGV[2], holder) == 1
redis.call('ZREMRANGEBYSCORE', living, '-inf', now)
redis.call('PEXPIRE', living, ARGV[2] * 10)
local alive = redis.call('ZCARD', living)
local DAY = 86400000

local function days_of(year, month) -- days from 1970-01-01 to the first of a month
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local day = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + day - 719468
end

local function month_end(days) -- the first of the month after the one that `days` lie in
  local shifted = days + 719468
  local of_era = shifted % 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = (math.floor((5 * of_year + 2) / 153) + 2) % 12 + 1
  year = year + math.floor(shifted / 146097) * 400
  if month <= 2 then year = year + 1 end
  if month == 12 then return days_of(year + 1, 1) end
  return days_of(year, month + 1)
end

local function end_of(kind, period_ms)
  local days = math.floor(now / DAY)
  if kind == 'day' then return (days + 1) * DAY end
  if kind == 'week' then return (days + 7 - (days + 3) % 7) * DAY end -- 1970 began on a Thursday
  if kind == 'month' then return month_end(days) * DAY end
  return math.floor(now) + period_ms
end

local function held(key) -- forgets the dead; returns what they held, and what the living hold
  local dead, held = 0, 0
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, number = fields[i], tonumber(fields[i + 1])
    if string.sub(name, 1, 2) == 'h:' then
      if redis.call('ZSCORE', living, string.sub(name, 3)) then
        held = held + number
      else
        dead = dead + number
        redis.call('HDEL', key, name)
      end
    end
  end
  return dead, held
end

local function hold(key, more) -- the asker holds so much more, or less
  if more ~= 0 then
    local now_held = tonumber(redis.call('HGET', key, 'h:' .. holder) or 0) + more
    if now_held > 0 then
      redis.call('HSET', key, 'h:' .. holder, now_held)
    else
      redis.call('HDEL', key, 'h:' .. holder)
    end
  end
end

local found, is_met = {}, true
for i = 3, #KEYS do
  local at, key = 6 + (i - 3) * 10, KEYS[i]
  local kind, amount, period = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local need, sure, want = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local back, back_end = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  local is_held, freed = ARGV[at + 8] == '1', tonumber(ARGV[at + 9])
  local it = {key = key, kind = kind, period = period, need = need, sure = sure, want = want, is_held = is_held}
  if kind == 'flow' then
    local until_ = math.max(now, tonumber(redis.call('HGET', key, 't') or 0))
    it.until_ = math.max(now, until_ - back * period)
    it.taken = it.until_ - until_
    it.left = amount - math.ceil((it.until_ - now) / period - 0.000001)
    it.is_untouched = it.left >= amount
  elseif kind == 'streams' then
    hold(key, -back)
    local _, under_way = held(key)
    it.left = amount - under_way
    it.is_untouched = false
  else
    local state = redis.call('HMGET', key, 'u', 'e')
    local used, ends = tonumber(state[1] or 0), tonumber(state[2] or 0)
    if ends <= now or ends > now + 2 * period then -- over, or begun while the store's clock was wrong
      if ends > 0 then redis.call('DEL', key) end
      used, ends = 0, 0
    end
    if ends == 0 and back < 0 and back_end > now and back_end <= now + 2 * period then
      ends = back_end -- the store was started anew, and calls of that window are under way
    end
    it.taken, it.held = 0, 0
    if back < 0 or ends == back_end then
      it.taken = math.max(0, used - back) - used
      used = used + it.taken
    end
    if ends == back_end then
      hold(key, -freed)
      it.held = -freed
    end
    if is_held and need > amount - used then
      used = math.max(0, used - (held(key)))
    end
    it.used, it.ends, it.left = used, ends, amount - used
    it.is_untouched = used == 0
  end
  it.fits = need == 0 or need <= it.left or (it.is_untouched and need > amount)
  if not it.fits then is_met = false end
  found[#found + 1] = it
end

local reply, changes = {is_new and -alive or alive}, {}
for _, it in ipairs(found) do
  local granted = 0
  if is_met then
    granted = it.need
    granted = granted + math.max(0, math.min(it.sure - granted, it.left - granted))
    if it.want > granted and it.left > granted then -- never all that is left: others want some too
      granted = granted + math.min(it.want - granted, math.floor((it.left - granted) / (2 * alive)))
    end
  elseif not it.fits then
    granted = -1
  end
  local taken = math.max(0, granted)
  local reset, ends = 0, 0
  if it.kind == 'flow' then
    it.until_ = it.until_ + taken * it.period
    changes[#changes + 1] = {it.key, it.kind, 0, it.taken + taken * it.period, 0}
    reset = it.until_ - now
    if reset > 0 then
      redis.call('HSET', it.key, 't', it.until_)
      redis.call('PEXPIRE', it.key, math.ceil(reset) + 1000)
    else
      redis.call('DEL', it.key)
    end
  elseif it.kind == 'streams' then
    hold(it.key, taken)
    redis.call('PEXPIRE', it.key, 7 * DAY)
  else
    it.used = it.used + taken
    ends = it.ends
    if it.used > 0 or ends > 0 then
      if ends == 0 then ends = end_of(it.kind, it.period) end
      redis.call('HSET', it.key, 'u', it.used, 'e', ends)
      if it.is_held then hold(it.key, taken) end
      changes[#changes + 1] = {it.key, it.kind, ends, it.taken + taken, it.held + (it.is_held and taken or 0)}
      redis.call('PEXPIREAT', it.key, math.ceil(ends))
      reset = ends - now
    end
  end
  reply[#reply + 1] = granted
  reply[#reply + 1] = it.left - taken
  reply[#reply + 1] = math.ceil(reset)
  reply[#reply + 1] = ends
end
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) do redis.call('HDEL', done, number) end
if ARGV[3] ~= '0' then
  redis.call('HSET', done, ARGV[3], cmsgpack.pack(changes))
  redis.call('PEXPIRE', done, DAY)
end
return reply
