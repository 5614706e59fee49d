-- Charges, looks at or gives back everything that one request asks for in this
-- slot. Nothing is written before everything was looked at: Redis does not roll back.
--
-- ARGV[1] is a sequence of MessagePack values, KEYS are named in it by their index:
--   op, epoch, lane, seq, seq as text, (groups) n, {group}, (rates) n, {rate}
--   group: epoch hash, meta, usage hash, token, digest, account, (rows) n, {row}
--   row:   once key or 0, cost, need, max (-1: unlimited), force, field, end, spent, refunded
--   rate:  window hash, once key or 0, cost, need, max, force, scope, width, index
-- op: 0 look, loading all (Peek), 1 take, 2 give back, 3 look as a take would,
--     4 settle a take of which nobody knows whether it ran: give back what it took,
--     5 settle such a giving back. Either keeps a call that comes later from running.
--
-- The answer is an array of integers: what, now (ms), then
--   1 done, 0 denied: the token of each group, then of each row and each rate
--                     used, charged, exceeded, wait (ms), index
--   2 cold:     group, generation, the number of rows, the rows, the epochs of the bucket
--   3 lost:     the epoch is not what the caller knows: the data of its bucket were lost
--   4 settled:  this call was settled before it came
--   5 overflow: a row or rate would pass 2^53
-- Of a settled call the answer is 1 and each row's charged is what it took or gave
-- back; used is 1 in the rows of which the call has run.
local MAX = 9007199254740992
local DAY = 86400000
local EPOCH_TTL = 7 * DAY
local ONCE_TTL = DAY
local floor, max, min = math.floor, math.max, math.min
local call, pack, unpackm, format = redis.call, cmsgpack.pack, cmsgpack.unpack, string.format

-- Every request runs this: it is written to make few calls, of Redis and of
-- functions, few functions, each of which is made anew by each run, and few
-- tables, with room for what will be in them: a table that grows is counted through
-- each time. What is absent of a row or a rate is false.
local a = { unpackm(ARGV[1]) }
local at = 6 -- of the last value that was read

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local op, epoch, lane, seq, state0 = a[1], a[2], a[3], a[4], a[5]
local taking, giving, settling = op == 1, op == 2, op > 3
local denied, overflow, cold = false, false, nil

local function known(once)
	local at = call('GET', KEYS[once])
	return at and now - at < ONCE_TTL
end

-- Usage ---------------------------------------------------------------------

-- register makes the epoch known to its bucket: loads that began before are void.
local registered = {}
local function register(g)
	local ekey = KEYS[g.epoch]
	local token = registered[ekey]
	if not token then
		local micros = time[1] * 1000000 + time[2]
		token = g.found and tonumber(g.found)
		-- Whoever knows the token was told it when the epoch was listed.
		local listed = token and (g.token == token or call('HEXISTS', KEYS[g.meta], epoch) == 1)
		if not token then
			token = micros
			call('HSET', ekey, 't', format('%.0f', token))
			local f = call('HGET', KEYS[g.meta], 'f')
			if f then
				call('HSET', ekey, 'f', f)
			end
			call('PEXPIRE', ekey, EPOCH_TTL)
		end
		if not listed then
			local before = tonumber(call('HGET', KEYS[g.meta], 'g') or 0)
			call('HSET', KEYS[g.meta], epoch, '1', 'g', format('%.0f', max(micros, before + 1)))
			call('PEXPIRE', KEYS[g.meta], 30 * DAY)
		end
		registered[ekey] = token
	end
	g.token = token
end

local groups = { nil, nil }
for i = 1, a[at] do
	local rows = { nil, nil, nil, nil }
	local g = {
		epoch = a[at + 1], meta = a[at + 2], usage = a[at + 3], token = a[at + 4], digest = a[at + 5], account = a[at + 6], rows = rows,
	}
	local efields, ufields = { 't', 'f', lane, nil, nil, nil, nil, nil }, { 'f', nil, nil, nil, nil }
	local n = a[at + 7]
	at = at + 7
	for j = 1, n do
		local field = a[at + 6]
		local name = g.digest .. field
		rows[j] = {
			once = a[at + 1], cost = a[at + 2], need = a[at + 3], max = a[at + 4], force = a[at + 5] == 1,
			field = field, stop = a[at + 7], total = a[at + 8], back = a[at + 9], name = name, asked = a[at + 2], used = 0, charged = 0,
		}
		at = at + 9
		efields[j + 3] = name
		ufields[j + 1] = field
	end
	local held = call('HMGET', KEYS[g.epoch], unpack(efields))
	g.found = held[1]
	-- The lane says which call of it came last: seq, where rows got less than they
	-- asked for !row:amount! for each, then c if it was settled, t if it will not run.
	local last = held[3] and (tonumber(held[3]) or tonumber(string.match(held[3], '^%d+'))) or -1
	if settling then
		g.ran = last == seq and string.find(held[3], 't', 1, true) == nil
		g.settled = last == seq and string.find(held[3], '[ct]$') ~= nil
		g.state = held[3]
	elseif last >= seq then
		return { 4, now }
	end
	if not settling and g.token ~= 0 and tonumber(g.found or 0) ~= g.token then
		return { 3, now }
	end
	local used = call('HMGET', KEYS[g.usage], unpack(ufields))
	local f = held[2]
	if not g.found then
		f = call('HGET', KEYS[g.meta], 'f')
	end
	local valid = used[1] == f -- else all usage was forgotten since it was filled
	for j = 1, n do
		local r = rows[j]
		local spent, refunded = 0, 0
		if held[j + 3] then
			spent, refunded = unpackm(held[j + 3])
		end
		-- What the caller knows for certain and this server does not was lost with a
		-- failover: it is counted again.
		r.total, r.back = max(spent, r.total), max(refunded, r.back)
		local base = valid and used[j + 1]
		if base then
			r.warm = true
			r.used = max(0, tonumber(base) + (r.total - spent) - (r.back - refunded))
		else
			r.used = max(0, r.total - r.back)
		end
		if settling then
			r.charged = 0
			if g.ran then
				r.charged = tonumber(string.match(g.state, '!' .. j .. ':(%d+)!') or r.cost)
			end
		elseif giving then
			if not r.warm and r.max == 0 then -- what is freed: no more than is there
				cold = cold or { g = i }
				if cold.g == i then
					cold[#cold + 1] = j
				end
			end
			if r.max == 0 then
				r.cost = min(r.cost, r.used)
			end
			overflow = overflow or r.back + r.cost > MAX
		elseif not r.warm and (op == 0 or (r.max >= 0 and not r.force)) then
			cold = cold or { g = i }
			if cold.g == i then
				cold[#cold + 1] = j
			end
		else
			r.free = r.once ~= 0 and known(r.once)
			overflow = overflow or r.total + r.cost > MAX or r.used + r.cost > MAX
			r.exceeded = r.max >= 0 and not r.free and r.used + max(r.cost, r.need) > r.max -- as quota.Charge.Fits
			denied = denied or (r.exceeded and not r.force)
		end
	end
	groups[i] = g
end

-- Rates: package quota's Window, bucket for bucket ----------------------------

-- A window is {width, index of the newest bucket, 11 counts by index % 11, the
-- time (ms) until which its key is sure to live}.

-- window moves a window to now, and answers what is counted in it.
local function window(w, width)
	local index, kept = floor(now / width), nil
	if w[1] ~= width then
		kept = w[1] ~= 0 and window(w, w[1]) or 0
		w[1] = width
	elseif index < w[2] - 10 then -- the clock went back by more than a window: all moves to now
		kept = 0
		for i = 3, 13 do
			kept = kept + w[i]
		end
	end
	if kept then
		for i = 3, 13 do
			w[i] = 0
		end
		w[2], w[3 + index % 11] = index, kept
		return kept
	end
	for i = max(w[2] + 1, index - 10), index do
		w[3 + i % 11] = 0
	end
	w[2] = max(w[2], index)
	local n = 0
	for i = 3, 13 do
		n = n + w[i]
	end
	return n
end

-- Settling --------------------------------------------------------------------

if settling then
	local reply = { 1, now }
	for _, g in ipairs(groups) do
		reply[#reply + 1] = 0
		if not g.settled then
			local e, u = { 'HSET', KEYS[g.epoch], lane, g.ran and g.state .. 'c' or state0 .. 't' }, { 'HSET', KEYS[g.usage] }
			for _, r in ipairs(g.rows) do
				if op == 4 and r.charged > 0 then
					e[#e + 1] = r.name
					e[#e + 1] = pack(r.total, r.back + r.charged, r.stop, g.account)
					if r.warm then
						u[#u + 1] = r.field
						u[#u + 1] = format('%.0f', max(0, r.used - r.charged))
					end
				end
				if op == 4 and r.charged > 0 and r.once ~= 0 then
					call('DEL', KEYS[r.once])
				end
			end
			call(unpack(e))
			if not g.found then -- the bucket's data were lost: this must not stay for ever
				call('PEXPIRE', KEYS[g.epoch], EPOCH_TTL)
			end
			if #u > 2 then
				call(unpack(u))
			end
		end
	end
	for _, g in ipairs(groups) do
		for _, r in ipairs(g.rows) do
			for _, n in ipairs({ g.ran and 1 or 0, r.charged, 0, 0, 0 }) do
				reply[#reply + 1] = n
			end
		end
	end
	return reply
end

local rates = { nil, nil }
at = at + 1
for i = 1, a[at] do
	local r = {
		key = KEYS[a[at + 1]], once = a[at + 2], cost = a[at + 3], need = a[at + 4], max = a[at + 5], force = a[at + 6] == 1,
		scope = a[at + 7], width = a[at + 8], used = 0, wait = 0, charged = 0,
	}
	local index = a[at + 9]
	at = at + 9
	local raw = call('HGET', r.key, r.scope)
	local w = raw and { unpackm(raw) } or { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
	local stored = w[1]
	r.w = w
	if giving then
		if r.once ~= 0 then
			call('DEL', KEYS[r.once])
		end
		-- Moved to other buckets, nobody can tell it from the rest: it stays, on the
		-- side of the limit.
		local c = w[3 + index % 11]
		if stored == r.width and index <= w[2] and index >= w[2] - 10 and c > 0 then
			r.take = true
			w[3 + index % 11] = max(0, c - r.cost)
		end
	else
		local cost = max(r.cost, r.need)
		r.used = window(w, r.width)
		r.free = r.once ~= 0 and known(r.once)
		overflow = overflow or r.used + r.cost > MAX
		r.exceeded = not r.free and r.max >= 0 and r.used + cost > r.max
		if r.exceeded then
			local own, width = w, r.width
			if stored > 0 and stored < width then -- it stays in its own buckets
				own, width = { unpackm(raw) }, stored
			end
			if cost > r.max then
				r.wait = -1
			else -- until enough of the oldest buckets have left
				local n = window(own, width)
				for j = own[2] - 10, own[2] do
					local c = own[3 + j % 11]
					if n + cost > r.max and c > 0 then
						n = n - c
						if n + cost <= r.max then
							r.wait = (j + 11) * width - now
						end
					end
				end
			end
			denied = denied or not r.force
		end
		-- What is counted in a longer window moves to the shorter one's buckets, once
		-- and for good. The other way it moves only when something is taken: else a
		-- client that is denied would keep a window full by asking.
		r.take = taking and stored > r.width
	end
	rates[i] = r
end

-- The answer ------------------------------------------------------------------

if overflow then
	return { 5, now }
end
if cold then
	local g = groups[cold.g]
	register(g)
	local reply = { 2, now, cold.g, 0, #cold }
	for _, j in ipairs(cold) do
		reply[#reply + 1] = j
	end
	local meta = call('HGETALL', KEYS[g.meta])
	for i = 1, #meta, 2 do
		if meta[i] == 'g' then
			reply[4] = tonumber(meta[i + 1])
		elseif meta[i] ~= 'f' then
			reply[#reply + 1] = meta[i]
		end
	end
	return reply
end

local reply, n = { -- room for one group and four charges
	denied and 0 or 1, now, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil,
}, 2
local write = not denied and (taking or giving)

for i = 1, #groups do
	local g = groups[i]
	local rows = g.rows
	local e, u = { 'HSET', KEYS[g.epoch], lane, '', nil, nil, nil, nil }, { 'HSET', KEYS[g.usage], nil, nil, nil, nil }
	local state, written, warm = state0, 4, 2
	for j = 1, #rows do
		local r = rows[j]
		if not denied and not r.free then
			r.charged = r.cost
		end
		if r.charged ~= r.asked then
			state = state .. '!' .. j .. ':' .. format('%.0f', r.charged) .. '!'
		end
		if write and r.charged > 0 then
			if giving then
				r.back = r.back + r.charged
				r.used = max(0, r.used - r.charged)
			else
				r.total = r.total + r.charged
				r.used = r.used + r.charged
			end
			e[written + 1], e[written + 2] = r.name, pack(r.total, r.back, r.stop, g.account)
			written = written + 2
			if r.warm then
				u[warm + 1], u[warm + 2] = r.field, format('%.0f', r.used)
				warm = warm + 2
			end
			if taking and r.once ~= 0 then
				call('SET', KEYS[r.once], format('%.0f', now), 'PX', ONCE_TTL)
			end
		elseif not denied and not giving then
			r.used = r.used + r.charged -- as if it had been taken
		end
		if giving and r.once ~= 0 then
			call('DEL', KEYS[r.once])
		end
	end
	if written > 4 then
		register(g)
		e[4] = state
		call(unpack(e))
		if warm > 2 then
			call(unpack(u))
		end
	end
	n = n + 1
	reply[n] = g.found and tonumber(g.found) or g.token
end

for i = 1, #rates do
	local r = rates[i]
	if not giving and not denied and not r.free and not r.exceeded then
		r.charged = r.cost
		r.used = r.used + r.charged
		if write and r.charged > 0 then
			local newest = 3 + r.w[2] % 11
			r.take = true
			r.w[newest] = r.w[newest] + r.charged
			if r.once ~= 0 then
				call('SET', KEYS[r.once], format('%.0f', now), 'PX', ONCE_TTL)
			end
		end
	end
	if r.take then
		local w = r.w
		local left = (w[2] + 11) * w[1] - now
		local keep = now + left > w[14]
		if keep then -- twice as long as is needed, so that not every request sets it
			w[14] = now + 2 * left
		end
		call('HSET', r.key, r.scope, pack(unpack(w)))
		if keep and left > 0 and call('PTTL', r.key) < 2 * left then -- not shorter for other scopes
			call('PEXPIRE', r.key, 2 * left)
		end
	end
end

for i = 1, #groups do
	local rows = groups[i].rows
	for j = 1, #rows do
		local r = rows[j]
		reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = r.used, r.charged, r.exceeded and 1 or 0, 0, 0
		n = n + 5
	end
end
for i = 1, #rates do
	local r = rates[i]
	reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = r.used, r.charged, r.exceeded and 1 or 0, r.wait, r.w[2]
	n = n + 5
end
return reply
