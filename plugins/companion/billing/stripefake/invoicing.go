package stripefake

import (
	"fmt"
	"maps"
)

// total is the sum of the lines: negative if more is given back than asked for.
func (i *invoice) total() int64 {
	var sum int64
	for _, l := range i.Lines {
		sum += l.Amount
	}
	return sum
}

// due is what has to be paid, after the customer's balance was drawn on.
func (i *invoice) due() int64 { return max(0, i.total()+i.drawn()) }

// drawn is what the customer's credit takes off (negative), or what an old debt adds.
func (i *invoice) drawn() int64 {
	if i.StartingBalance < 0 {
		return max(i.StartingBalance, -max(0, i.total()))
	}
	return i.StartingBalance
}

// draft is a new invoice of the subscription.
func (m *mode) draft(s *subscription, reason string, lines []line) *invoice {
	i := m.Invoices.add(&invoice{
		ID: m.id("in_1", longID-1), Customer: s.Customer, Subscription: s.ID, Status: "draft", Reason: reason, Currency: s.Currency,
		Created: m.now, PeriodStart: m.now, PeriodEnd: m.now, Lines: lines, Metadata: maps.Clone(s.Metadata),
	})
	for k := range i.Lines {
		i.Lines[k].ID = m.id("il_1", longID-1)
	}
	s.LatestInvoice = i.ID
	m.emit("invoice.created", m.invoiceObject(i))
	return i
}

// finalize makes a draft an invoice that is to be paid, with a payment intent if
// there is something to pay.
func (m *mode) finalize(i *invoice) {
	c := m.Customers.get(i.Customer)
	c.InvoiceSequence++
	i.Number = fmt.Sprintf("%s-%04d", c.InvoicePrefix, c.InvoiceSequence)
	if c.Currency == "" {
		c.Currency = i.Currency
	}
	i.Status, i.FinalizedAt, i.FinalizeAt = "open", m.now, 0
	i.StartingBalance = c.Balance
	i.EndingBalance = c.Balance - i.drawn() + min(0, i.total())
	if i.EndingBalance != c.Balance {
		was := m.customerObject(c)
		c.Balance = i.EndingBalance
		m.told("customer.updated", was, m.customerObject(c))
	}
	if i.due() > 0 {
		p := m.Intents.add(&intent{
			ID: m.id("pi_3", longID-1), Customer: i.Customer, Currency: i.Currency, Amount: i.due(), Invoice: i.ID,
			Status: "requires_payment_method", Created: m.now, Secret: m.digest("secret", m.Sequence, longID),
		})
		i.Intent = p.ID
		m.emit("payment_intent.created", m.intentObject(p))
	}
	m.emit("invoice.finalized", m.invoiceObject(i))
}

// bill makes an invoice, finalizes it and collects it at once.
func (m *mode) bill(s *subscription, reason string, lines []line) (*invoice, *decline) {
	i := m.draft(s, reason, lines)
	m.finalize(i)
	return i, m.collect(i, m.methodFor(s.Customer, s.DefaultMethod))
}

// void ends an invoice that will not be paid.
func (m *mode) void(i *invoice) {
	i.Status, i.VoidedAt, i.NextAttempt, i.FinalizeAt = "void", m.now, 0, 0
	if p := m.Intents.get(i.Intent); p != nil && p.Status != "succeeded" {
		p.Status, p.CanceledAt = "canceled", m.now
		m.emit("payment_intent.canceled", m.intentObject(p))
	}
	m.emit("invoice.voided", m.invoiceObject(i))
}

// periodLines are what the items cost for one period.
func (m *mode) periodLines(s *subscription, items []subItem, start, end int64) []line {
	var lines []line
	for _, item := range items {
		p := m.Prices.get(item.Price)
		lines = append(lines, line{
			Description: fmt.Sprintf("%d × %s (at %s / %s)", item.Quantity, m.Products.get(p.Product).Name, money(p.Amount, p.Currency), p.each()),
			Price:       p.ID, Item: item.ID, Quantity: item.Quantity, Amount: p.Amount * item.Quantity, Start: start, End: end,
		})
	}
	return lines
}

// trialLines are the same for the time of a trial, which costs nothing.
func (m *mode) trialLines(s *subscription) []line {
	lines := m.periodLines(s, s.Items, s.TrialStart, s.TrialEnd)
	for k := range lines {
		lines[k].Amount = 0
		lines[k].Description = "Trial period for " + m.Products.get(m.Prices.get(lines[k].Price).Product).Name
	}
	return lines
}

// each is what a price is paid for: month, or 3 months.
func (p *price) each() string {
	if p.IntervalCount > 1 {
		return fmt.Sprintf("%d %ss", p.IntervalCount, p.Interval)
	}
	return p.Interval
}

// money is an amount for a person.
func money(amount int64, currency string) string {
	sign := ""
	if amount < 0 {
		sign, amount = "−", -amount
	}
	symbol := map[string]string{"usd": "$", "eur": "€", "gbp": "£"}[currency]
	text := fmt.Sprintf("%s%s%d.%02d", sign, symbol, amount/100, amount%100)
	if symbol == "" {
		text += " " + currency
	}
	return text
}
