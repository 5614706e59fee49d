package stripefake

import (
	"errors"
	"fmt"
)

// Declined is a payment that was refused.
type Declined struct {
	// Code and DeclineCode are Stripe's: card_declined, insufficient_funds.
	Code, DeclineCode string
	Message           string
}

// Error implements error.
func (d *Declined) Error() string { return d.Message }

// Pay completes a checkout session as its page does, with a card's number or a
// test payment method's name (pm_card_visa), or with none where none is needed.
// It answers where the payer goes next. A refused card is a *Declined, and the
// session stays open.
func (f *Fake) Pay(sessionID, card string) (string, error) {
	var next string
	err := f.either(func(m *mode) (bool, error) {
		s := m.Sessions.get(sessionID)
		if s == nil {
			return false, nil
		}
		if s.Status != "open" {
			return true, fmt.Errorf("paying a checkout session that is %s: %w", s.Status, errNotOpen)
		}
		used := cardBy(card)
		switch {
		case card != "" && used == nil:
			return true, &Declined{Code: "incorrect_number", Message: "Your card number is not one of the test cards."}
		case card == "" && (s.CollectAlways || m.dueNow(s) > 0):
			return true, &Declined{Code: "incomplete_number", Message: "Your card number is missing."}
		}
		next = s.successAddress()
		if d := m.complete(s, used); d != nil {
			return true, &Declined{Code: d.Code, DeclineCode: d.DeclineCode, Message: d.Message}
		}
		return true, nil
	})
	return next, err
}

// FailPayments has all payments of a customer declined with a decline code from
// now on (insufficient_funds, generic_decline), whatever the card; an empty code
// leaves it to the card again.
func (f *Fake) FailPayments(customerID, declineCode string) error {
	return f.either(func(m *mode) (bool, error) {
		c := m.Customers.get(customerID)
		if c == nil {
			return false, nil
		}
		c.Failing = declineCode
		return true, nil
	})
}

// OpenDispute contests a payment, as a cardholder's bank does, and answers the
// dispute's id.
func (f *Fake) OpenDispute(chargeID, reason string) (string, error) {
	var id string
	err := f.either(func(m *mode) (bool, error) {
		c := m.Charges.get(chargeID)
		switch {
		case c == nil:
			return false, nil
		case c.Failure != nil || c.Dispute != "":
			return true, fmt.Errorf("disputing %s: it failed, or is disputed already", chargeID)
		}
		id = m.openDispute(c, reason).ID
		return true, nil
	})
	return id, err
}

// CloseDispute decides a dispute.
func (f *Fake) CloseDispute(disputeID string, won bool) error {
	return f.either(func(m *mode) (bool, error) {
		r := m.Disputes.get(disputeID)
		switch {
		case r == nil:
			return false, nil
		case !r.open():
			return true, fmt.Errorf("closing %s: it is %s", disputeID, r.Status)
		}
		m.closeDispute(r, won)
		return true, nil
	})
}

// Seed is a price that a catalogue is to have.
type Seed struct {
	Product, LookupKey, Currency, Interval string // Interval: month or year
	Amount                                 int64  // in the currency's minor unit
}

// Seed makes the prices that are not there yet, and their products, by name. One
// that is there stays as it is.
func (f *Fake) Seed(prices []Seed) error {
	return f.change(false, func(m *mode) error {
		for _, s := range prices {
			if len(m.Prices.newest(func(p *price) bool { return p.LookupKey == s.LookupKey })) > 0 {
				continue
			}
			var of *product
			for _, p := range m.Products.rows {
				if p.Name == s.Product {
					of = p
				}
			}
			if of == nil {
				of = m.newProduct(&product{Name: s.Product, Active: true, Metadata: map[string]string{}, Created: m.now, Updated: m.now})
			}
			m.newPrice(&price{
				Product: of.ID, Currency: s.Currency, LookupKey: s.LookupKey, Amount: s.Amount, Interval: s.Interval, IntervalCount: 1,
				Active: true, Metadata: map[string]string{}, Created: m.now,
			})
		}
		return nil
	})
}

// either runs do on the mode that has what it asks for.
func (f *Fake) either(do func(*mode) (found bool, err error)) error {
	for _, live := range []bool{false, true} {
		var found bool
		err := f.change(live, func(m *mode) (err error) {
			found, err = do(m)
			return err
		})
		if found || err != nil {
			return err
		}
	}
	return errNotFound
}

// errNotOpen is for a session that was paid, or whose time is over.
var errNotOpen = errors.New("the session is not open")

// errNotFound is for what is in neither mode.
var errNotFound = errors.New("the billing fake has nothing of that id")
