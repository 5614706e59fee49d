-- Charges, looks at or gives back everything that one request asks for in this
-- slot. Nothing is written before everything was looked at: Redis does not roll back.
--
-- ARGV[1] is a sequence of MessagePack values, KEYS are named in it by their index:
--   op, epoch, lane, seq, seq as text, (groups) n, {group}, (rates) n, {rate}
--   group: epoch hash, meta, usage hash, token, digest, account, (rows) n, {row}
--   row:   once key or 0, cost, what must fit, max (-1: unlimited), mode, field, end, spent, refunded
--   rate:  window hash, once key or 0, cost, what must fit, max, mode, scope, width, index
--   mode:  0 denies, 1 does not; 2 more where what is known here is enough
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
--   6 done, and all was taken as asked for, by no more than the limits: the token
--     of each group, then used of each row and each rate; index is that of now
-- Of a settled call the answer is 1 and each row's charged is what it took or gave
-- back; used is 1 in the rows of which the call has run.
local MAX = 9007199254740992
local EPOCH_TTL = 604800000 -- ms: 7 days
local ONCE_TTL = 86400000 -- ms: a day
local call, pack, unpackm, keys = redis.call, cmsgpack.pack, cmsgpack.unpack, KEYS

-- Every request runs this: it is written to make few calls, of Redis and of
-- functions, few functions, each of which is made anew by each run and with it a
-- place for every variable of others that it uses, and few tables, with room for what
-- will be in them: a table that grows is counted through each time. What is absent of
-- a row or a rate is false. Redis writes integers up to 2^53 exactly.
local a = { unpackm(ARGV[1]) }
local at = 6 -- of the last value that was read

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local op, epoch, lane, seq, state0 = a[1], a[2], a[3], a[4], a[5]
local taking, giving, settling = op == 1, op == 2, op > 3
local denied, overflow, cold = false, false, nil
local whole = taking -- all that is asked for is taken, and exceeds nothing

local function known(once, now, ttl)
	local at = redis.call('GET', once)
	return at and now - at < ttl
end

-- Usage ---------------------------------------------------------------------

-- register makes the epoch known to its bucket: loads that began before are void.
local function register(g, epoch, time, registered, ttl)
	local call = redis.call
	local token = registered[g.epoch]
	if not token then
		local micros = time[1] * 1000000 + time[2]
		token = g.found and tonumber(g.found)
		-- Whoever knows the token was told it when the epoch was listed.
		local listed = token and (g.token == token or call('HEXISTS', g.meta, epoch) == 1)
		if not token then
			token = micros
			call('HSET', g.epoch, 't', token)
			local f = call('HGET', g.meta, 'f')
			if f then
				call('HSET', g.epoch, 'f', f)
			end
			call('PEXPIRE', g.epoch, ttl)
		end
		if not listed then
			local before = tonumber(call('HGET', g.meta, 'g') or 0)
			call('HSET', g.meta, epoch, '1', 'g', math.max(micros, before + 1))
			call('PEXPIRE', g.meta, 4 * ttl)
		end
		registered[g.epoch] = token
	end
	g.token = token
end

local groups, registered = { nil, nil }, { nil }
for i = 1, a[at] do
	local ekey, ukey, token, digest, n = keys[a[at + 1]], keys[a[at + 3]], a[at + 4], a[at + 5], a[at + 7]
	local efields, ufields = { 't', 'f', lane, nil, nil, nil, nil, nil }, { 'f', nil, nil, nil, nil }
	local row = at + 7 -- where the first begins
	for j = 1, n do
		local field = a[row + 6]
		efields[j + 3], ufields[j + 1] = digest .. field, field
		row = row + 9
	end
	local held = call('HMGET', ekey, unpack(efields))
	local found, state = held[1], held[3]
	local rows = { nil, nil, nil, nil }
	local g = { epoch = ekey, meta = keys[a[at + 2]], usage = ukey, token = token, account = a[at + 6], found = found, names = efields, rows = rows }
	groups[i] = g
	-- The lane says which call of it came last: seq, where rows got less than they
	-- asked for !row:amount! for each, then c if it was settled, t if it will not run.
	local last = state and (tonumber(state) or tonumber(string.match(state, '^%d+'))) or -1
	if settling then
		g.ran = last == seq and string.find(state, 't', 1, true) == nil
		g.settled = last == seq and string.find(state, '[ct]$') ~= nil
		g.state = state
	elseif last >= seq then
		return { 4, now }
	elseif token ~= 0 and tonumber(found or 0) ~= token then
		return { 3, now }
	end
	local counted = call('HMGET', ukey, unpack(ufields))
	local f = held[2]
	if not found then
		f = call('HGET', g.meta, 'f')
	end
	local valid = counted[1] == f -- else all usage was forgotten since it was filled
	at = at + 7
	for j = 1, n do
		local once, cost, most, total, back = a[at + 1], a[at + 2], a[at + 4], a[at + 8], a[at + 9]
		local spent, refunded = 0, 0
		if held[j + 3] then
			spent, refunded = unpackm(held[j + 3])
		end
		-- What the caller knows for certain and this server does not was lost with a
		-- failover: it is counted again.
		if total < spent then
			total = spent
		end
		if back < refunded then
			back = refunded
		end
		local warm = valid and counted[j + 1]
		local used = warm and warm + (total - spent) - (back - refunded) or total - back
		if used < 0 then
			used = 0
		end
		local charged, exceeded = 0, false
		if settling then
			if g.ran then
				charged = tonumber(string.match(state, '!' .. j .. ':(%d+)!') or cost)
			end
		elseif giving then
			charged = cost
			if most == 0 then -- what is freed: no more than is there
				if not warm then
					cold = cold or { g = i }
					if cold.g == i then
						cold[#cold + 1] = j
					end
				end
				charged = math.min(cost, used)
			end
			overflow = overflow or back + charged > MAX
		elseif not warm and a[at + 5] < 2 and (op == 0 or most >= 0 and a[at + 5] == 0) then
			cold = cold or { g = i }
			if cold.g == i then
				cold[#cold + 1] = j
			end
		else
			if once == 0 or not known(keys[once], now, ONCE_TTL) then
				charged = cost
				if most >= 0 and used + a[at + 3] > most then -- as quota.Charge.Fits
					exceeded, whole = true, false
					denied = denied or a[at + 5] % 2 == 0
				end
			end
			overflow = overflow or total + cost > MAX or used + cost > MAX
		end
		rows[j] = { at = at, total = total, back = back, warm = warm, used = used, charged = charged, exceeded = exceeded }
		at = at + 9
	end
end

-- Rates: package quota's Window, bucket for bucket ----------------------------

-- A window is {width, index of the newest bucket, 11 counts by index % 11, the
-- time (ms) until which its key is sure to live}.

-- window moves a window to now, and answers what is counted in it.
local function window(w, width, now)
	local index, newest, kept = (now - now % width) / width, w[2], nil
	if w[1] ~= width then
		kept = w[1] ~= 0 and window(w, w[1], now) or 0
		w[1] = width
	elseif index < newest - 10 then -- the clock went back by more than a window: all moves to now
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
	if newest < index then
		for i = newest < index - 11 and index - 10 or newest + 1, index do
			w[3 + i % 11] = 0
		end
		w[2] = index
	end
	return w[3] + w[4] + w[5] + w[6] + w[7] + w[8] + w[9] + w[10] + w[11] + w[12] + w[13]
end

-- Settling --------------------------------------------------------------------

if settling then
	local reply = { 1, now }
	for _, g in ipairs(groups) do
		reply[#reply + 1] = 0
		if not g.settled then
			local e, u = { 'HSET', g.epoch, lane, g.ran and g.state .. 'c' or state0 .. 't' }, { 'HSET', g.usage }
			for j, r in ipairs(g.rows) do
				local once, field, stop = a[r.at + 1], a[r.at + 6], a[r.at + 7]
				if op == 4 and r.charged > 0 then
					e[#e + 1] = g.names[j + 3]
					e[#e + 1] = pack(r.total, r.back + r.charged, stop, g.account)
					if r.warm then
						u[#u + 1] = field
						u[#u + 1] = math.max(0, r.used - r.charged)
					end
					if once ~= 0 then
						call('DEL', keys[once])
					end
				end
			end
			call(unpack(e))
			if not g.found then -- the bucket's data were lost: this must not stay for ever
				call('PEXPIRE', g.epoch, EPOCH_TTL)
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
	local once, cost, need, most, width = a[at + 2], a[at + 3], a[at + 4], a[at + 5], a[at + 8]
	local raw = call('HGET', keys[a[at + 1]], a[at + 7])
	local w = raw and { unpackm(raw) } or { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
	local stored = w[1]
	local used, wait, charged, free, exceeded, take = 0, 0, 0, false, false, false
	if giving then
		if once ~= 0 then
			call('DEL', keys[once])
		end
		local index = a[at + 9]
		-- Moved to other buckets, nobody can tell it from the rest: it stays, on the
		-- side of the limit.
		local c = w[3 + index % 11]
		if stored == width and index <= w[2] and index >= w[2] - 10 and c > 0 then
			take = true
			w[3 + index % 11] = math.max(0, c - cost)
		end
	else
		used = window(w, width, now)
		whole = whole and w[2] * width <= now
		overflow = overflow or used + cost > MAX
		free = once ~= 0 and known(keys[once], now, ONCE_TTL)
		exceeded = not free and most >= 0 and used + need > most
		if exceeded then
			whole = false
			local own, owidth = w, width
			if stored > 0 and stored < width then -- it stays in its own buckets
				own, owidth = { unpackm(raw) }, stored
			end
			if need > most then
				wait = -1
			else -- until enough of the oldest buckets have left
				local n = window(own, owidth, now)
				for j = own[2] - 10, own[2] do
					local c = own[3 + j % 11]
					if n + need > most and c > 0 then
						n = n - c
						if n + need <= most then
							wait = (j + 11) * owidth - now
						end
					end
				end
			end
			denied = denied or a[at + 6] == 0
		elseif not free then
			charged = cost
		end
		-- What is counted in a longer window moves to the shorter one's buckets, once
		-- and for good. The other way it moves only when something is taken: else a
		-- client that is denied would keep a window full by asking.
		take = taking and stored > width
	end
	rates[i] = { at = at, w = w, used = used, wait = wait, charged = charged, exceeded = exceeded, take = take }
	at = at + 9
end

-- The answer ------------------------------------------------------------------

if overflow then
	return { 5, now }
end
if cold then
	local g = groups[cold.g]
	register(g, epoch, time, registered, EPOCH_TTL)
	local reply = { 2, now, cold.g, 0, #cold }
	for _, j in ipairs(cold) do
		reply[#reply + 1] = j
	end
	local meta = call('HGETALL', g.meta)
	for i = 1, #meta, 2 do
		if meta[i] == 'g' then
			reply[4] = tonumber(meta[i + 1])
		elseif meta[i] ~= 'f' then
			reply[#reply + 1] = meta[i]
		end
	end
	return reply
end

local reply, n = { 0, now, nil, nil, nil, nil, nil, nil }, 2 -- room for one group and five charges
local write = not denied and (taking or giving)

for i = 1, #groups do
	local g = groups[i]
	local rows, names = g.rows, g.names
	local e, u = { 'HSET', g.epoch, lane, '', nil, nil, nil, nil }, { 'HSET', g.usage, nil, nil, nil, nil }
	local state, written, counted = state0, 4, 2
	for j = 1, #rows do
		local r = rows[j]
		local charged, o = r.charged, r.at
		if denied then
			r.charged = 0
		else
			local once = a[o + 1]
			if charged ~= a[o + 2] then -- what was asked for
				whole = false
				state = state .. '!' .. j .. ':' .. string.format('%.0f', charged) .. '!'
			end
			if giving then
				r.back = r.back + charged
				r.used = math.max(0, r.used - charged)
				if once ~= 0 then
					call('DEL', keys[once])
				end
			else
				r.total, r.used = r.total + charged, r.used + charged -- of a look: as if it had been taken
				if taking and once ~= 0 and charged > 0 then
					call('SET', keys[once], now, 'PX', ONCE_TTL)
				end
			end
			if write and charged > 0 then
				e[written + 1], e[written + 2] = names[j + 3], pack(r.total, r.back, a[o + 7], g.account)
				written = written + 2
				if r.warm then
					u[counted + 1], u[counted + 2] = a[o + 6], r.used
					counted = counted + 2
				end
			end
		end
	end
	if written > 4 then
		if g.token == 0 then
			register(g, epoch, time, registered, EPOCH_TTL)
		end
		e[4] = state
		call(unpack(e))
		if counted > 2 then
			call(unpack(u))
		end
	end
	n = n + 1
	reply[n] = g.token ~= 0 and g.token or tonumber(g.found or 0)
end

for i = 1, #rates do
	local r = rates[i]
	local charged, w, o = r.charged, r.w, r.at
	if denied then
		r.charged = 0
	else
		whole = whole and charged == a[o + 3]
		r.used = r.used + charged
		if write and charged > 0 then
			local newest = 3 + w[2] % 11
			r.take, w[newest] = true, w[newest] + charged
			if a[o + 2] ~= 0 then
				call('SET', keys[a[o + 2]], now, 'PX', ONCE_TTL)
			end
		end
	end
	if r.take then
		local key, left = keys[a[o + 1]], (w[2] + 11) * w[1] - now
		local keep = now + left > w[14]
		if keep then -- twice as long as is needed, so that not every request sets it
			w[14] = now + 2 * left
		end
		call('HSET', key, a[o + 7], pack(unpack(w)))
		if keep and left > 0 and call('PTTL', key) < 2 * left then -- not shorter for other scopes
			call('PEXPIRE', key, 2 * left)
		end
	end
end

whole = whole and not denied
reply[1] = whole and 6 or denied and 0 or 1
for i = 1, #groups do
	local rows = groups[i].rows
	for j = 1, #rows do
		local r = rows[j]
		n = n + 1
		reply[n] = r.used
		if not whole then
			reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = r.charged, r.exceeded and 1 or 0, 0, 0
			n = n + 4
		end
	end
end
for i = 1, #rates do
	local r = rates[i]
	n = n + 1
	reply[n] = r.used
	if not whole then
		reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = r.charged, r.exceeded and 1 or 0, r.wait, r.w[2]
		n = n + 4
	end
end
return reply
