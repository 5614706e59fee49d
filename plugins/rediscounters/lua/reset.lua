-- Empties rate windows of a subject. KEYS[1]: its window hash. ARGV: the scopes;
-- none: all. Answers the scopes that were not empty.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local scopes = #ARGV > 0 and ARGV or call('HKEYS', KEYS[1])
local emptied = {}
for _, scope in ipairs(scopes) do
	local raw = call('HGET', KEYS[1], scope)
	if raw then
		local w = { cmsgpack.unpack(raw) }
		local index = math.floor(now / w[1])
		for i = math.max(w[2], index) - 10, w[2] do
			if w[3 + i % 11] > 0 then
				emptied[#emptied + 1] = scope
				break
			end
		end
		call('HDEL', KEYS[1], scope)
	end
end
return emptied
