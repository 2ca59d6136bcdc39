-- End a name: what its last questions did, and their asker has not heard, is undone; those that come later do nothing.
--
-- KEYS[1]  who is alive, as in take.lua
-- KEYS[2]  what the name's questions did, as in take.lua
-- ARGV[1]  the name
-- ARGV[2]  the number of its last question that was answered
-- ARGV[3]  for how many milliseconds a question may still come, from a connection that is broken already
--
-- What calls hold under the name is free again, as a dead one's: whoever goes on says anew what it holds.

local done, holder, answered = KEYS[2], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZREM', KEYS[1], holder)

local function undo(key, kind, ends, taken, held)
  if kind == 'flow' then
    local until_ = tonumber(redis.call('HGET', key, 't') or 0) - taken
    if until_ > now then redis.call('HSET', key, 't', until_) else redis.call('DEL', key) end
    return
  end
  local state = redis.call('HMGET', key, 'u', 'e')
  if tonumber(state[2] or 0) ~= ends or ends == 0 then return end -- that window is over
  redis.call('HSET', key, 'u', math.max(0, tonumber(state[1] or 0) - taken))
  local left = tonumber(redis.call('HGET', key, 'h:' .. holder) or 0) - held
  if left > 0 then redis.call('HSET', key, 'h:' .. holder, left) else redis.call('HDEL', key, 'h:' .. holder) end
end

local fields = redis.call('HGETALL', done)
for i = 1, #fields, 2 do
  local number = tonumber(fields[i])
  if number and number > answered then
    for _, it in ipairs(cmsgpack.unpack(fields[i + 1])) do undo(unpack(it)) end
  end
end
redis.call('DEL', done)
redis.call('HSET', done, 'over', 1)
redis.call('PEXPIRE', done, ARGV[3])
return 1
