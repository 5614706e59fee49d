package stripefake

// methodFor is what a payment of the subscription is made with: its own payment
// method, else the customer's default; nil if there is none.
func (m *mode) methodFor(customerID, own string) *method {
	if r := m.Methods.get(own); r != nil && r.Customer == customerID {
		return r
	}
	if c := m.Customers.get(customerID); c != nil {
		if r := m.Methods.get(c.DefaultMethod); r != nil && r.Customer == customerID {
			return r
		}
	}
	return nil
}

// judge is how a payment with the method would end: nil if it would succeed.
func (m *mode) judge(customerID string, r *method) *decline {
	if r == nil {
		return &decline{Message: "This customer has no attached payment source or default payment method. Please consider adding a default payment method."}
	}
	if c := m.Customers.get(customerID); c != nil && c.Failing != "" {
		return newDecline("card_declined", c.Failing)
	}
	return cardBy(r.Card).declines()
}

// collect tries to collect what is due of an open invoice. A decline is its
// result, not an error.
func (m *mode) collect(i *invoice, r *method) *decline {
	i.NextAttempt = 0
	i.Attempts++
	if i.due() == 0 {
		m.paid(i)
		return nil
	}
	d := m.judge(i.Customer, r)
	p := m.Intents.get(i.Intent)
	if r != nil {
		c := m.Charges.add(&charge{
			ID: m.id("ch_3", longID-1), Customer: i.Customer, Currency: i.Currency, Amount: i.due(), Intent: p.ID, Method: r.ID,
			Invoice: i.ID, Created: m.now, Failure: d,
		})
		p.Charge, p.Method = c.ID, r.ID
		if d != nil {
			d.Charge, d.Method = c.ID, r.ID
		}
	}
	p.Error = d
	if d != nil {
		p.Status, p.Method = "requires_payment_method", ""
		m.declined(i, p)
		return d
	}
	p.Status = "succeeded"
	m.emit("charge.succeeded", m.chargeObject(m.Charges.get(p.Charge)))
	m.emit("payment_intent.succeeded", m.intentObject(p))
	m.paid(i)
	if cardBy(r.Card).Disputed {
		m.openDispute(m.Charges.get(p.Charge), "fraudulent")
	}
	return nil
}

// paid closes an invoice of which nothing is due any more.
func (m *mode) paid(i *invoice) {
	i.Status, i.PaidAt, i.Paid, i.NextAttempt = "paid", m.now, i.due(), 0
	if p := m.Intents.get(i.Intent); p != nil {
		m.emit("invoice_payment.paid", m.paymentObject(i))
	}
	m.emit("invoice.paid", m.invoiceObject(i))
	m.emit("invoice.payment_succeeded", m.invoiceObject(i))
	if s := m.Subscriptions.get(i.Subscription); s != nil {
		m.recovered(s, i)
	}
}

// recovered is what a paid invoice does to its subscription.
func (m *mode) recovered(s *subscription, i *invoice) {
	was := m.subscriptionObject(s)
	if u := s.Update; u != nil && u.Invoice == i.ID {
		s.Update = nil
		s.Items = m.itemsFrom(s, u.Items)
		m.emit("customer.subscription.pending_update_applied", m.subscriptionObject(s))
	}
	switch s.Status {
	case "incomplete":
		s.Status = "active"
	case "past_due", "unpaid":
		if s.LatestInvoice == i.ID || !m.owes(s) {
			s.Status = "active"
		}
	case "paused":
		if s.LatestInvoice == i.ID && i.Reason == "subscription_update" {
			s.Status = "active"
			m.told("customer.subscription.updated", was, m.subscriptionObject(s))
			m.emit("customer.subscription.resumed", m.subscriptionObject(s))
			return
		}
	}
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
}

// owes reports whether an invoice of the subscription is open.
func (m *mode) owes(s *subscription) bool {
	for _, i := range m.Invoices.rows {
		if i.Subscription == s.ID && i.Status == "open" {
			return true
		}
	}
	return false
}

// declined is what a failed payment does: it is tried again later, until that
// was done often enough.
func (m *mode) declined(i *invoice, p *intent) {
	s := m.Subscriptions.get(i.Subscription)
	last := false
	waits := s != nil && s.Update != nil && s.Update.Invoice == i.ID // a change that has not been made
	if s != nil && s.collecting() && !waits {
		retries := m.fake.options.Retries
		if n := i.Attempts - 1; n < len(retries) {
			i.NextAttempt = m.now + int64(retries[n].Seconds())
		} else {
			last = true
		}
	}
	if p.Charge != "" && p.Error.Charge == p.Charge {
		m.emit("charge.failed", m.chargeObject(m.Charges.get(p.Charge)))
		m.emit("payment_intent.payment_failed", m.intentObject(p))
	}
	m.emit("invoice.payment_failed", m.invoiceObject(i))
	if s == nil || waits {
		return
	}
	was := m.subscriptionObject(s)
	if s.Status == "active" || s.Status == "trialing" {
		s.Status = "past_due"
	}
	if last && s.Status == "past_due" && m.fake.options.AfterRetries == Unpaid {
		s.Status = Unpaid
	}
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	if last && s.Status == "past_due" && m.fake.options.AfterRetries == Cancel {
		m.cancel(s, "payment_failed")
	}
}

// collecting reports whether failed payments of the subscription are retried:
// not before its first was made, and not after its end.
func (s *subscription) collecting() bool {
	return s.Status == "active" || s.Status == "trialing" || s.Status == "past_due"
}

// over reports whether the subscription has ended.
func (s *subscription) over() bool { return s.Status == "canceled" || s.Status == "incomplete_expired" }
