-- Forgets an epoch in one bucket. KEYS: its hash, meta. ARGV[1]: the epoch.
local call = redis.call
if call('DEL', KEYS[1]) + call('HDEL', KEYS[2], ARGV[1]) > 0 then
	local time = call('TIME')
	local before = tonumber(call('HGET', KEYS[2], 'g') or 0)
	call('HSET', KEYS[2], 'g', string.format('%.0f', math.max(time[1] * 1000000 + time[2], before + 1)))
	call('PEXPIRE', KEYS[2], 30 * 86400000)
end
return 1
