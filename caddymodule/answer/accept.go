package answer

import "strings"

// Qualities are in thousandths, as RFC 9110, 12.4.2 allows three decimals.
const fullQuality = 1000

// prefersProblem reports whether the Accept lines ask for
// application/problem+json rather than application/json: they weigh it higher,
// or they name it and weigh it no lower. Somebody who accepts anything gets
// what the backends send.
func prefersProblem(lines []string) bool {
	if len(lines) == 0 {
		return false
	}
	var problem, plain preference
	for _, line := range lines {
		for line != "" {
			var element string
			element, line = cut(line, ',')
			media, q, ok := parseRange(element)
			if !ok {
				continue
			}
			problem.consider(media, "application/problem+json", q)
			plain.consider(media, "application/json", q)
		}
	}
	if problem.q == 0 {
		return false
	}
	return problem.q > plain.q || problem.q == plain.q && problem.precision == exact
}

// The precisions of a media range: the more precise decides (RFC 9110, 12.5.1).
const (
	none = iota
	anything
	anySubtype
	exact
)

// preference is the quality of one media type, so far.
type preference struct{ precision, q int }

func (p *preference) consider(media, typ string, q int) {
	precision := none
	switch {
	case strings.EqualFold(media, typ):
		precision = exact
	case media == "*/*":
		precision = anything
	case len(media) > 2 && strings.HasSuffix(media, "/*") && len(typ) >= len(media) && strings.EqualFold(media[:len(media)-1], typ[:len(media)-1]):
		precision = anySubtype
	}
	switch {
	case precision == none:
	case precision > p.precision:
		p.precision, p.q = precision, q
	case precision == p.precision:
		p.q = max(p.q, q)
	}
}

// parseRange reads a media range with its weight. Other parameters are passed
// over; ok is false where the weight is malformed: such a range counts for nothing.
func parseRange(element string) (media string, q int, ok bool) {
	media, params := cut(element, ';')
	media = strings.TrimSpace(media)
	for q = fullQuality; params != ""; {
		var param string
		param, params = cut(params, ';')
		name, value, found := strings.Cut(param, "=")
		if !found || !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		if q, ok = parseQuality(strings.TrimSpace(value)); !ok {
			return "", 0, false
		}
	}
	return media, q, media != ""
}

// parseQuality reads 0, 1 or a number between with at most three decimals.
func parseQuality(s string) (int, bool) {
	if len(s) == 0 || len(s) > 5 || s[0] != '0' && s[0] != '1' {
		return 0, false
	}
	q := int(s[0]-'0') * fullQuality
	if len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	for i, unit := 2, fullQuality/10; i < len(s); i, unit = i+1, unit/10 {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		q += int(s[i]-'0') * unit
	}
	return q, q <= fullQuality
}

// cut splits s at the first sep that does not stand in a quoted string.
func cut(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && s[i] == sep:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
