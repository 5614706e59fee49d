-- Makes usage cold. KEYS: meta, then the usage hash of an account, or with ARGV[1]
-- the hashes of the epochs that stand in ARGV[2..]: then everybody's usage in the
-- bucket. Answers {1}, or {0, epoch...} with the epochs of the bucket if others
-- than those are there.
local call = redis.call
local time = call('TIME')
local before = tonumber(call('HGET', KEYS[1], 'g') or 0)
local stamp = string.format('%.0f', math.max(time[1] * 1000000 + time[2], before + 1))

if ARGV[1] ~= '1' then
	call('DEL', KEYS[2])
else
	local named, others = {}, { 0 }
	for i = 2, #ARGV do
		named[ARGV[i]] = true
	end
	local missing = false
	for _, field in ipairs(call('HKEYS', KEYS[1])) do
		if field ~= 'g' and field ~= 'f' then
			others[#others + 1] = field
			missing = missing or not named[field]
		end
	end
	if missing then
		return others
	end
	call('HSET', KEYS[1], 'f', stamp)
	for i = 2, #KEYS do
		if call('HEXISTS', KEYS[i], 't') == 1 then
			call('HSET', KEYS[i], 'f', stamp)
		end
	end
end
call('HSET', KEYS[1], 'g', stamp)
call('PEXPIRE', KEYS[1], 30 * 86400000)
return { 1 }
