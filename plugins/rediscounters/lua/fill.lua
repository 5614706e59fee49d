-- Fills what was used of cold keys of one account: what the records say of other
-- epochs, and of each epoch of the bucket what it holds here, at this moment, or
-- what the records have of it, where that is more: data that were lost have been
-- replaced by older ones.
-- KEYS: meta, usage hash, the hashes of all epochs that the bucket had when the
-- load began. ARGV[1], MessagePack values: generation, digest, account, (epochs) n,
-- {epoch}, (fields) n, {field, used, {spent, refunded, end}}, the last of each epoch
-- as recorded; MAX, MAX: all of it is in used. Answers 1, or 0 if the load is void.
local call, pack, unpackm, max = redis.call, cmsgpack.pack, cmsgpack.unpack, math.max
local MAX = 9007199254740992
local KEEP = 3 * 86400000

local a = { unpackm(ARGV[1]) }
local at = 0
local function take()
	at = at + 1
	return a[at]
end

local generation, digest, account = take(), take(), take()
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
	local f = { field = take(), used = take(), recorded = {} }
	for j = 1, #epochs do
		f.recorded[j] = { spent = take(), refunded = take(), stop = take() }
	end
	fields[i] = f
	names[i + 1] = digest .. f.field
end
local older = {} -- rows of epochs of which the records have more
for i, epoch in ipairs(epochs) do
	local held = call('HMGET', KEYS[2 + i], unpack(names))
	if not held[1] then -- it ended without being dropped: its rows are the records' alone
		call('HDEL', KEYS[1], epoch)
		local time = call('TIME')
		call('HSET', KEYS[1], 'g', string.format('%.0f', max(time[1] * 1000000 + time[2], generation + 1)))
		return 0
	end
	for j, f in ipairs(fields) do
		local r, spent, refunded = f.recorded[i], 0, 0
		if held[j + 1] then
			spent, refunded = unpackm(held[j + 1])
		end
		if (r.spent > spent or r.refunded > refunded) and r.spent < MAX then
			older[#older + 1] = { KEYS[2 + i], names[j + 1], pack(max(spent, r.spent), max(refunded, r.refunded), r.stop, account) }
		end
		f.used = f.used + (max(spent, r.spent) - max(refunded, r.refunded))
	end
end
-- Their process counts again what it knows and its epoch does not hold: not what is
-- in used already.
for _, row in ipairs(older) do
	call('HSET', unpack(row))
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
