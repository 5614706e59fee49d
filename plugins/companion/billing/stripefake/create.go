package stripefake

import "slices"

// readOrder reads what a new subscription is made of, from the parameters that
// subscriptions and checkout sessions share.
func (c *call) readOrder(in reader, o *order) {
	o.Metadata = in.metadata("metadata", nil)
	o.Description = in.str("description")
	o.TrialDays = in.integer("trial_period_days", 0)
	if in.str("trial_end") != "" && in.str("trial_end") != "now" {
		o.TrialEnd = in.integer("trial_end", 0)
		if o.TrialEnd <= c.now {
			in.fail(invalid(in.name("trial_end"), "Invalid timestamp: must be in the future"))
		}
	}
	if o.TrialDays < 0 || o.TrialDays > 730 {
		in.fail(invalid(in.name("trial_period_days"), "Invalid trial_period_days: must be between 1 and 730"))
	}
	if o.TrialDays != 0 && o.TrialEnd != 0 {
		in.fail(invalid(in.name("trial_end"), "You may only specify one of these parameters: trial_end, trial_period_days."))
	}
	o.MissingMethod = in.in("trial_settings").in("end_behavior").word("missing_payment_method", "create_invoice", "cancel", "pause")
}

// readItems reads prices and quantities.
func (c *call) readItems(name string, in []reader) []orderItem {
	var items []orderItem
	for _, r := range in {
		items = append(items, orderItem{Price: r.need("price"), Quantity: r.integer("quantity", 1)})
	}
	if len(items) == 0 {
		c.fail(missing(name))
	}
	if c.err() != nil {
		return nil
	}
	if bad := c.checkItems(name, items); bad != nil {
		c.fail(bad)
	}
	return items
}

// checkItems refuses items that cannot be on one subscription.
func (m *mode) checkItems(name string, items []orderItem) *apiError {
	var first *price
	for k, item := range items {
		p, bad := m.price(item.Price, name+"[price]")
		switch {
		case bad != nil:
			return bad
		case !p.Active:
			return invalid(name+"[price]", "The price specified is inactive. This field only accepts active prices.")
		case p.Interval == "":
			return invalid(name+"[price]", "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.")
		case item.Quantity < 0:
			return invalid(name+"[quantity]", "This value must be greater than or equal to 0.")
		case slices.ContainsFunc(items[:k], func(o orderItem) bool { return o.Price == item.Price }):
			return invalid(name, "Subscription Items: you cannot have two items with the same price (%s)", item.Price)
		case first == nil:
			first = p
		case p.Currency != first.Currency:
			return invalid(name, "The price specified only supports `%s`. This doesn't match the expected currency: `%s`.", p.Currency, first.Currency)
		case p.Interval != first.Interval || p.IntervalCount != first.IntervalCount:
			return unsupported(name, "prices of different intervals on one subscription")
		}
	}
	return nil
}

// itemsFrom are subscription items for prices: those that are named stay
// themselves, and those whose price the subscription has already.
func (m *mode) itemsFrom(s *subscription, items []orderItem) []subItem {
	var out []subItem
	for _, item := range items {
		made := subItem{Created: m.now, Metadata: map[string]string{}}
		keep := slices.IndexFunc(s.Items, func(x subItem) bool {
			named := slices.ContainsFunc(items, func(o orderItem) bool { return o.ID == x.ID })
			return x.ID == item.ID || item.ID == "" && !named && x.Price == item.Price
		})
		if keep >= 0 {
			made = s.Items[keep]
		} else {
			made.ID = m.id("si_", shortID)
		}
		made.Price, made.Quantity = item.Price, item.Quantity
		out = append(out, made)
	}
	return out
}

// create makes a subscription and collects its first invoice. A decline leaves
// it incomplete, unless the order says that it is an error.
func (m *mode) create(o order) (*subscription, *apiError) {
	if o.TrialDays > 0 {
		o.TrialEnd = m.now + o.TrialDays*day
	}
	first := m.Prices.get(o.Items[0].Price)
	amount := int64(0)
	for _, item := range o.Items {
		amount += m.Prices.get(item.Price).Amount * item.Quantity
	}
	pay := o.TrialEnd == 0 && amount > 0
	own := m.methodFor(o.Customer, o.Method)
	if d := m.judge(o.Customer, own); pay && d != nil {
		switch {
		case d.Code == "" && o.Behavior != "default_incomplete":
			return nil, noMethod(d)
		case o.Behavior == "error_if_incomplete":
			return nil, d.refusal()
		}
	}
	s := &subscription{
		ID: m.id("sub_1", longID-1), Customer: o.Customer, Status: "incomplete", Currency: first.Currency, Description: o.Description,
		Metadata: o.Metadata, Created: m.now, Start: m.now, Anchor: m.now, MissingMethod: o.MissingMethod, DefaultMethod: o.Method,
	}
	s.Items = m.itemsFrom(s, o.Items)
	s.PeriodStart, s.PeriodEnd = m.now, first.endOf(m.now)
	if o.TrialEnd != 0 {
		s.Status, s.TrialStart, s.TrialEnd = "trialing", m.now, o.TrialEnd
		s.Anchor, s.PeriodEnd = o.TrialEnd, o.TrialEnd
	}
	if !pay && o.TrialEnd == 0 {
		s.Status = "active"
	}
	if o.CancelAt != 0 {
		s.CancelAt, s.CanceledAt, s.Reason = o.CancelAt, m.now, "cancellation_requested"
	}
	if o.CancelAtPeriodEnd {
		m.endWithPeriod(s)
	}
	m.Subscriptions.add(s)
	m.emit("customer.subscription.created", m.subscriptionObject(s))
	was := m.subscriptionObject(s)
	lines := m.periodLines(s, s.Items, s.PeriodStart, s.PeriodEnd)
	if o.TrialEnd != 0 {
		lines = m.trialLines(s)
	}
	i := m.draft(s, "subscription_create", lines)
	m.finalize(i)
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	if o.Behavior != "default_incomplete" || !pay {
		m.collect(i, own)
	}
	m.tellTrialEnd(s)
	return s, nil
}

// tellTrialEnd says that a trial ends within three days, once.
func (m *mode) tellTrialEnd(s *subscription) {
	if s.Status == "trialing" && !s.TrialEndTold && s.TrialEnd-trialNotice <= m.now {
		s.TrialEndTold = true
		m.emit("customer.subscription.trial_will_end", m.subscriptionObject(s))
	}
}

// endWithPeriod has the subscription end with its current period.
func (m *mode) endWithPeriod(s *subscription) {
	s.CancelAtPeriodEnd, s.CancelAt, s.CanceledAt, s.Reason = true, s.PeriodEnd, m.now, "cancellation_requested"
}
