-- Fills what was used of cold keys of one account: what the records say of ended
-- epochs, and what the living epochs of the bucket hold here, at this moment.
-- KEYS: meta, usage hash, the hashes of all epochs that the bucket had when the
-- load began. ARGV[1], MessagePack values: generation, digest, (epochs) n, {epoch},
-- (fields) n, {field, used}. Answers 1, or 0 if the load is void.
local call, unpackm, max = redis.call, cmsgpack.unpack, math.max
local KEEP = 3 * 86400000

local a = { unpackm(ARGV[1]) }
local at = 0
local function take()
	at = at + 1
	return a[at]
end

local generation, digest = take(), take()
local meta = call('HMGET', KEYS[1], 'g', 'f')
if tonumber(meta[1] or 0) ~= generation then
	return 0
end
local epochs = {}
for i = 1, take() do
	epochs[i] = take()
end
local fields, names = {}, { 't' }
for i = 1, take() do
	fields[i] = { field = take(), used = take() }
	names[i + 1] = digest .. fields[i].field
end
for i, epoch in ipairs(epochs) do
	local held = call('HMGET', KEYS[2 + i], unpack(names))
	if not held[1] then -- it ended without being dropped: its rows are the records' alone
		call('HDEL', KEYS[1], epoch)
		local time = call('TIME')
		call('HSET', KEYS[1], 'g', string.format('%.0f', max(time[1] * 1000000 + time[2], generation + 1)))
		return 0
	end
	for j, f in ipairs(fields) do
		if held[j + 1] then
			local spent, refunded = unpackm(held[j + 1])
			f.used = f.used + spent - refunded
		end
	end
end

local f = call('HGET', KEYS[2], 'f')
if f ~= meta[2] then
	call('DEL', KEYS[2])
	if meta[2] then
		call('HSET', KEYS[2], 'f', meta[2])
	end
end
local fresh = call('EXISTS', KEYS[2]) == 0 or call('PTTL', KEYS[2]) < 0
for _, field in ipairs(fields) do
	call('HSETNX', KEYS[2], field.field, string.format('%.0f', max(0, field.used)))
end
if fresh then
	call('PEXPIRE', KEYS[2], KEEP)
end
return 1
