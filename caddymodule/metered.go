package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Metered is an amount of a metric.
type Metered struct {
	Metric string `json:"metric"`
	// Amount defaults to 1 where something is spent; what is freed must be said.
	Amount Amount `json:"amount,omitempty"`
	// At is the place in a Caddyfile, such as Caddyfile:12, where the metric is not
	// one of those that there always are: whether a plan names it shows only when
	// the records are open.
	At string `json:"at,omitempty"`
}

// Amount is how much is spent or freed: a whole number in 0..2^53,
// "request_bytes", "response_seconds" or a placeholder. In JSON a number may
// stand without quotes.
type Amount string

// The amounts that only the request knows.
const (
	requestBytes    = "request_bytes"
	responseSeconds = "response_seconds"
)

func (m *Metered) compile() quota.Metered {
	c := quota.Metered{Metric: m.Metric}
	switch {
	case m.Amount == "":
		c.Constant = 1
	case m.Amount == requestBytes:
		c.Kind = quota.AmountRequestBytes
	case m.Amount == responseSeconds:
		c.Kind = quota.AmountResponseSeconds
	case isPlaceholder(string(m.Amount)):
		c.Kind, c.Text = quota.AmountPlaceholder, string(m.Amount)
	default:
		// check refuses what is no number before the rule is used.
		c.Constant, _ = strconv.ParseInt(string(m.Amount), 10, 64)
	}
	return c
}

func checkMetered(ms []Metered, check func(Amount) error) error {
	var errs []error
	metrics := make(map[string]bool)
	for _, m := range ms {
		for _, err := range []error{checkName(m.Metric), checkNew(metrics, m.Metric), check(m.Amount)} {
			if err != nil {
				errs = append(errs, fmt.Errorf("metric %q: %w", m.Metric, err))
			}
		}
	}
	return errors.Join(errs...)
}

func checkSpend(a Amount) error {
	if a == "" || a == responseSeconds {
		return nil
	}
	return a.check(requestBytes + ", " + responseSeconds)
}

func checkFree(a Amount) error {
	switch a {
	case "":
		return errors.New("the amount is missing: write a whole number, request_bytes or a placeholder")
	case responseSeconds:
		return errors.New("response_seconds can be spent, not freed: time does not come back")
	}
	return a.check(requestBytes)
}

// check wants a number, or request_bytes or a placeholder. words are for its error.
func (a Amount) check(words string) error {
	if a == requestBytes || isPlaceholder(string(a)) {
		return nil
	}
	n, err := strconv.ParseInt(string(a), 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not an amount: want a whole number in 0..2^53, %s or a placeholder", string(a), words)
	}
	return quota.CheckAmount("amount", n)
}

// MarshalJSON writes a number where the amount is one.
func (a Amount) MarshalJSON() ([]byte, error) {
	if n, err := strconv.ParseInt(string(a), 10, 64); err == nil {
		return strconv.AppendInt(nil, n, 10), nil
	}
	return json.Marshal(string(a))
}

// UnmarshalJSON takes a number or a text.
func (a *Amount) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(a))
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("decoding an amount: %w", err)
	}
	*a = Amount(n)
	return nil
}
