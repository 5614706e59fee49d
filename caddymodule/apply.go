package caddymodule

import (
	"crypto/sha256"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// maxIdempotencyKey is the longest Idempotency-Key that is looked at, in bytes.
const maxIdempotencyKey = 255

// match appends the rules that match the request, in their order.
func (h *Handler) match(matched []*Rule, r *http.Request) ([]*Rule, error) {
	for _, rule := range h.Rules {
		ok, err := rule.matches(r)
		if err != nil {
			return nil, err
		}
		if ok {
			matched = append(matched, rule)
		}
	}
	return matched, nil
}

func (r *Rule) matches(req *http.Request) (bool, error) {
	if len(r.matchers) == 0 {
		return true, nil
	}
	return r.matchers.AnyMatchWithError(req)
}

// apply appends the matched rules, completed with what only this request knows.
func (h *Handler) apply(applied []quota.Applied, x *exchange, r *http.Request, matched []*Rule) ([]quota.Applied, error) {
	for _, rule := range matched {
		if err := rule.equivocal(r); err != nil {
			return nil, err
		}
		applied = append(applied, quota.Applied{
			Rule: rule.rule, Key: rule.key(r, x.repl),
			SpendAmounts: rule.spendAmounts, FreeAmounts: rule.freeAmounts,
		})
		a := &applied[len(applied)-1]
		if rule.idempotencyApplies(r) {
			a.Once = onceOf(x, r)
		}
		if rule.dynamic {
			rule.measure(a, r, x.repl)
		}
	}
	return applied, nil
}

// key is the subject of a rule by header or placeholder; empty: by IP.
func (r *Rule) key(req *http.Request, repl *caddy.Replacer) quota.Subject {
	switch r.rule.By {
	case quota.ByHeader:
		if v := req.Header[r.byText]; len(v) > 0 && v[0] != "" {
			return quota.Subject("header:" + r.byText + "=" + v[0])
		}
	case quota.ByValue:
		return r.valueKey(repl)
	}
	return ""
}

func (r *Rule) idempotencyApplies(req *http.Request) bool {
	return r.rule.Idempotent && len(req.Header["Idempotency-Key"]) == 1
}

// onceOf identifies a request by account, method, path and Idempotency-Key; the
// body is not read. Zero for an anonymous caller, who is charged nothing.
func onceOf(x *exchange, r *http.Request) quota.Digest {
	key := r.Header["Idempotency-Key"][0]
	if key == "" || len(key) > maxIdempotencyKey || x.caller.Entitlement == nil {
		return quota.Digest{}
	}
	hash := sha256.New()
	for _, part := range []string{string(x.caller.Entitlement.Account), r.Method, r.URL.EscapedPath(), key} {
		// Each part is preceded by its length: no two requests read alike.
		hash.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return quota.Digest(hash.Sum(nil)[:16])
}

// prepare computes the amounts that are the same for every request.
func (r *Rule) prepare() {
	fixed := func(ms []quota.Metered) []int64 {
		amounts := make([]int64, len(ms))
		for i, m := range ms {
			amounts[i] = m.Constant
			if m.Kind != quota.AmountConstant {
				amounts[i] = quota.AmountLate
				r.dynamic = true
			}
		}
		return amounts
	}
	r.spendAmounts, r.freeAmounts = fixed(r.rule.Spends), fixed(r.rule.Frees)
}

// measure replaces the amounts that this request tells. What is freed by a
// placeholder stays late: it may name a header of the answer.
func (r *Rule) measure(a *quota.Applied, req *http.Request, repl *caddy.Replacer) {
	a.SpendAmounts = append([]int64(nil), r.spendAmounts...)
	a.FreeAmounts = append([]int64(nil), r.freeAmounts...)
	for i, m := range r.rule.Spends {
		switch m.Kind {
		case quota.AmountRequestBytes:
			a.SpendAmounts[i] = bodyBytes(req)
		case quota.AmountPlaceholder:
			n, ok := amount(repl.ReplaceAll(m.Text, ""))
			if !ok {
				n = quota.AmountInvalid
			}
			a.SpendAmounts[i] = n
		}
	}
	for i, m := range r.rule.Frees {
		if m.Kind == quota.AmountRequestBytes {
			a.FreeAmounts[i] = bodyBytes(req)
		}
	}
}

// bodyBytes is the length of the request's body, late where it is not announced.
func bodyBytes(req *http.Request) int64 {
	if req.ContentLength < 0 {
		return quota.AmountLate
	}
	return min(req.ContentLength, quota.MaxAmount)
}

// amount reads a whole number in 0..2^53.
func amount(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && quota.CheckAmount("amount", n) == nil
}

// resolveFrees reads the amounts to free that the answer may tell. One that is
// no number frees nothing: a level that stays too high is safe, and is logged.
func (h *Handler) resolveFrees(x *exchange) {
	x.ticket.ResolveFrees(func(m quota.Metered) int64 {
		text := x.repl.ReplaceAll(m.Text, "")
		n, ok := amount(text)
		if !ok {
			if text != "" {
				h.log.Warn("an amount to free is not a whole number in 0..2^53: nothing is freed")
			}
			return 0
		}
		return n
	})
}
