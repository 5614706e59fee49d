package quota

// By says whose counter a rule's limits use.
type By uint8

// What a rule counts by.
const (
	ByDefault By = iota // the account if known, else the IP prefix
	ByUser              // the user if known, else the IP prefix
	ByAccount           // as ByDefault, but written down
	ByIP                // the IP prefix, always: base limits only, never a plan's
	ByHeader            // the value of a request header; absent: the IP prefix
	ByValue             // the value of a placeholder; empty: the IP prefix
)

// ScopeLimit limits a scope. A zero Base means that the config names none.
type ScopeLimit struct {
	Scope string
	Base  Rate
}

// AmountKind says where the amount of a Spend or Free comes from.
type AmountKind uint8

// The kinds of amounts.
const (
	AmountConstant        AmountKind = iota
	AmountRequestBytes               // the request's body, from Content-Length or as read
	AmountResponseSeconds            // charged at settle; admitted if any is left
	AmountPlaceholder
)

// AmountLate is an amount that only the end of the request tells. It is
// admitted if any of the quota is left, and charged when the request is settled.
const AmountLate = -1

// AmountInvalid is an amount that a request was to tell and did not. It refuses a
// caller who would be charged, and spends nothing.
const AmountInvalid = -2

// Metered is one `spend` or `free` of a rule.
type Metered struct {
	Metric   string
	Kind     AmountKind
	Constant int64  // for AmountConstant
	Text     string // for AmountPlaceholder
}

// Requirement is what a rule demands of the caller.
type Requirement struct {
	User    bool
	Feature string
	Scope   string // of an API key
}

// Rule is one rule of the directive, without its matchers.
type Rule struct {
	Name   string
	By     By
	Limits []ScopeLimit
	Spends []Metered
	Frees  []Metered

	Require               []Requirement
	Idempotent            bool
	InvalidTokenAnonymous bool
	// RefundUnless lists status classes (2 for 2xx): any other answer gives the
	// spends back. Empty: never.
	RefundUnless []int
	DenyOnOutage bool
	Shadow       bool
}

// Refunds reports whether the answer's status gives the rule's spends back.
func (r *Rule) Refunds(status int) bool {
	if len(r.RefundUnless) == 0 {
		return false
	}
	for _, class := range r.RefundUnless {
		if status/100 == class {
			return false
		}
	}
	return true
}

// Applied is a rule that matched a request, with what only the request knows.
type Applied struct {
	*Rule
	// Key is the counter's subject for ByHeader and ByValue; empty: fall back to the IP.
	Key Subject
	// SpendAmounts and FreeAmounts are the amounts of Rule.Spends and Rule.Frees,
	// in order: 0..MaxAmount, or AmountLate; of spends AmountInvalid, too.
	SpendAmounts, FreeAmounts []int64
	// Once identifies a repeated Idempotency-Key; zero where there is none.
	Once Digest
}
