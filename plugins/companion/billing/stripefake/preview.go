package stripefake

import "maps"

// previewInvoice works out the next invoice of a subscription, with changes or
// without, or the first of one that does not exist yet. Nothing is kept.
func previewInvoice(c *call) (object, *apiError) {
	owner, id := c.str("customer"), c.str("subscription")
	c.word("preview_mode", "next")
	in := c.in("subscription_details")
	if in.values == nil {
		in = newReader(&values{path: "subscription_details", members: map[string]*values{}})
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if id == "" {
		return c.previewNew(owner, in)
	}
	s, bad := c.subscription(id, "subscription")
	switch {
	case bad != nil:
		return nil, bad
	case owner != "" && owner != s.Customer:
		return nil, noSuch("subscription", id, "subscription")
	case s.over():
		return nil, noUpcoming(s.Customer)
	}
	// A copy, on which the change is made as if.
	as := *s
	before := c.Sequence
	defer func() { c.Sequence = before }()
	if in.boolean("cancel_at_period_end", s.CancelAtPeriodEnd) {
		as.CancelAt = s.PeriodEnd
	} else if s.CancelAtPeriodEnd {
		as.CancelAt = 0
	}
	there := &call{mode: c.mode, reader: in}
	a := there.readAlteration(&as, in.each("items"))
	if err := in.err(); err != nil {
		return nil, err
	}
	lines, at := as.Pending[:len(as.Pending):len(as.Pending)], as.PeriodEnd
	next := true
	if a != nil {
		e := c.effectOf(&as, *a)
		lines = append(lines, e.lines...)
		if e.now {
			next, at = false, c.now
		}
		as.Items, as.PeriodStart, as.PeriodEnd = e.items, e.start, e.end
	}
	if next && (as.CancelAt == 0 || as.CancelAt > as.PeriodEnd) {
		p := c.Prices.get(as.Items[0].Price)
		lines = append(lines, c.periodLines(&as, as.Items, as.PeriodEnd, nextBoundary(as.Anchor, as.PeriodEnd, p.Interval, p.IntervalCount))...)
	}
	if len(lines) == 0 {
		return nil, noUpcoming(s.Customer)
	}
	return c.previewObject(&as, lines, at), nil
}

// previewNew is the first invoice of a subscription that is not made yet.
func (c *call) previewNew(owner string, in reader) (object, *apiError) {
	if owner == "" {
		return nil, missing("customer")
	}
	if _, bad := c.customer(owner, "customer"); bad != nil {
		return nil, bad
	}
	there := &call{mode: c.mode, reader: in}
	items := there.readItems("subscription_details[items]", in.each("items"))
	if err := in.err(); err != nil {
		return nil, err
	}
	before := c.Sequence
	defer func() { c.Sequence = before }()
	p := c.Prices.get(items[0].Price)
	s := &subscription{Customer: owner, Currency: p.Currency, PeriodStart: c.now, PeriodEnd: p.endOf(c.now)}
	s.Items = c.itemsFrom(s, items)
	return c.previewObject(s, c.periodLines(s, s.Items, s.PeriodStart, s.PeriodEnd), c.now), nil
}

func noUpcoming(owner string) *apiError {
	e := invalid("", "No upcoming invoices for customer: %s", owner)
	e.Status, e.Code = 404, "invoice_upcoming_none"
	return e
}

func (c *call) previewObject(s *subscription, lines []line, at int64) object {
	i := &invoice{
		ID: "upcoming_in_" + c.digest("preview", uint64(c.now), longID), Customer: s.Customer, Subscription: s.ID, Status: "draft",
		Reason: "upcoming", Currency: s.Currency, Created: at, PeriodStart: s.PeriodStart, PeriodEnd: s.PeriodEnd, Lines: lines,
		StartingBalance: c.Customers.get(s.Customer).Balance, Metadata: maps.Clone(s.Metadata),
	}
	for k := range i.Lines {
		i.Lines[k].ID = "il_tmp_" + c.digest("il_tmp_", uint64(k), longID)
	}
	return c.invoiceObject(i)
}
