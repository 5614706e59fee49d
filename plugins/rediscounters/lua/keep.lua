-- Takes totals of an epoch that has ended and that its process alone has held. KEYS:
-- its hash, meta. ARGV[1], MessagePack values: epoch, {digest and field, spent,
-- refunded, end, account}. It may be repeated: the larger total stays.
local call, pack, unpackm, max = redis.call, cmsgpack.pack, cmsgpack.unpack, math.max
local DAY = 86400000

local a = { unpackm(ARGV[1]) }
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
for i = 2, #a, 5 do
	local spent, refunded = a[i + 1], a[i + 2]
	local held = call('HGET', KEYS[1], a[i])
	if held then
		local s, r = unpackm(held)
		spent, refunded = max(spent, s), max(refunded, r)
	end
	call('HSET', KEYS[1], a[i], pack(spent, refunded, a[i + 3], a[i + 4]))
end
call('HSETNX', KEYS[1], 't', string.format('%.0f', micros))
call('PEXPIRE', KEYS[1], 7 * DAY)
-- As of any epoch that begins: loads that do not know of it are void.
local before = tonumber(call('HGET', KEYS[2], 'g') or 0)
call('HSET', KEYS[2], a[1], '1', 'g', string.format('%.0f', max(micros, before + 1)))
call('PEXPIRE', KEYS[2], 30 * DAY)
return 1
