package stripefake

import (
	"maps"
	"slices"
)

func scheduleEndpoints() []endpoint {
	return []endpoint{
		{"POST", "/v1/subscription_schedules", "from_subscription metadata.*", createSchedule},
		{"GET", "/v1/subscription_schedules", listParams + " customer", func(c *call) (object, *apiError) {
			owner := c.str("customer")
			return listed(c, "/v1/subscription_schedules", &c.Schedules, func(r *schedule) bool {
				return owner == "" || r.Customer == owner
			}, c.scheduleObject)
		}},
		{"GET", "/v1/subscription_schedules/{id}", "", func(c *call) (object, *apiError) {
			r := c.Schedules.get(c.id)
			if r == nil {
				return nil, noSuch("subscription_schedule", c.id, "id")
			}
			return c.scheduleObject(r), nil
		}},
		{"POST", "/v1/subscription_schedules/{id}", "end_behavior proration_behavior metadata.* phases[].start_date phases[].end_date " +
			"phases[].items[].price phases[].items[].quantity phases[].proration_behavior phases[].metadata.* " +
			"phases[].duration.interval phases[].duration.interval_count", updateSchedule},
		{"POST", "/v1/subscription_schedules/{id}/release", "preserve_cancel_date", func(c *call) (object, *apiError) {
			r, bad := c.activeSchedule()
			if bad != nil {
				return nil, bad
			}
			c.release(r)
			return c.scheduleObject(r), nil
		}},
		{"POST", "/v1/subscription_schedules/{id}/cancel", "invoice_now prorate", func(c *call) (object, *apiError) {
			r, bad := c.activeSchedule()
			if bad != nil {
				return nil, bad
			}
			if c.boolean("invoice_now", false) || c.boolean("prorate", false) {
				return nil, unsupported("prorate", "proration when a schedule is canceled")
			}
			c.cancel(c.Subscriptions.get(r.Subscription), "cancellation_requested")
			return c.scheduleObject(r), nil
		}},
	}
}

func (c *call) activeSchedule() (*schedule, *apiError) {
	r := c.Schedules.get(c.id)
	switch {
	case r == nil:
		return nil, noSuch("subscription_schedule", c.id, "id")
	case r.Status != "active":
		return nil, invalid("", "You cannot change a subscription schedule that is currently in the `%s` status.", r.Status)
	}
	return r, nil
}

func createSchedule(c *call) (object, *apiError) {
	from, metadata := c.need("from_subscription"), c.metadata("metadata", nil)
	if err := c.err(); err != nil {
		return nil, err
	}
	s, bad := c.subscription(from, "from_subscription")
	switch {
	case bad != nil:
		return nil, bad
	case s.over() || s.Status == "incomplete":
		return nil, invalid("from_subscription", "You cannot migrate a subscription that is %s to a schedule.", s.Status)
	case s.Schedule != "":
		return nil, invalid("from_subscription", "You cannot migrate a subscription that is already attached to a schedule: `%s`.", s.Schedule)
	case s.CancelAt != 0:
		return nil, unsupported("from_subscription", "a schedule for a subscription that is set to end")
	}
	r := c.schedule(s, metadata)
	return c.scheduleObject(r), nil
}

// schedule is a new schedule whose one phase is the subscription as it is.
func (m *mode) schedule(s *subscription, metadata map[string]string) *schedule {
	var items []orderItem
	for _, x := range s.Items {
		items = append(items, orderItem{Price: x.Price, Quantity: x.Quantity})
	}
	r := m.Schedules.add(&schedule{
		ID: m.id("sub_sched_1", longID-1), Customer: s.Customer, Subscription: s.ID, Status: "active", EndBehavior: "release",
		Metadata: metadata, Created: m.now,
		Phases: []phase{{Start: s.PeriodStart, End: s.PeriodEnd, Items: items, Proration: prorateLater, Metadata: map[string]string{}}},
	})
	m.emit("subscription_schedule.created", m.scheduleObject(r))
	was := m.subscriptionObject(s)
	s.Schedule = r.ID
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	return r
}

func updateSchedule(c *call) (object, *apiError) {
	r, bad := c.activeSchedule()
	if bad != nil {
		return nil, bad
	}
	ending, metadata := c.word("end_behavior", r.EndBehavior, "release", "cancel"), c.metadata("metadata", r.Metadata)
	c.word("proration_behavior", prorateLater, prorateNow, prorateNever)
	phases := r.Phases
	if c.has("phases") {
		phases = c.readPhases(r)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	c.rewrite(r, phases, ending, metadata)
	return c.scheduleObject(r), nil
}

func (m *mode) rewrite(r *schedule, phases []phase, ending string, metadata map[string]string) {
	was := m.scheduleObject(r)
	r.Phases, r.EndBehavior, r.Metadata, r.Current = phases, ending, metadata, 0
	for k, p := range phases {
		if p.Start <= m.now {
			r.Current = k
		}
	}
	m.told("subscription_schedule.updated", was, m.scheduleObject(r))
}

// readPhases reads phases that follow each other without a gap, the first being
// the current one.
func (c *call) readPhases(r *schedule) []phase {
	var phases []phase
	now := r.Phases[r.Current]
	for k, in := range c.each("phases") {
		p := phase{
			Items: c.readItems(in.name("items"), in.each("items")), Metadata: in.metadata("metadata", nil),
			Proration: in.word("proration_behavior", prorateLater, prorateNow, prorateNever),
		}
		p.Start = now.Start
		if k > 0 {
			p.Start = phases[k-1].End
		}
		if sent := in.integer("start_date", p.Start); sent != p.Start {
			c.fail(invalid(in.name("start_date"), "The phases must be contiguous: %s must be %d.", in.name("start_date"), p.Start))
		}
		if c.err() != nil {
			return nil
		}
		length := in.in("duration")
		p.End = in.integer("end_date", 0)
		if p.End == 0 {
			first := c.Prices.get(p.Items[0].Price)
			p.End = nextBoundary(p.Start, p.Start, length.word("interval", first.Interval, "day", "week", "month", "year"),
				length.integer("interval_count", first.IntervalCount))
		}
		if p.End <= p.Start || p.End <= c.now {
			c.fail(invalid(in.name("end_date"), "A phase must end after it starts, and not in the past."))
		}
		phases = append(phases, p)
	}
	if len(phases) == 0 {
		c.fail(missing("phases"))
		return nil
	}
	if s := c.Subscriptions.get(r.Subscription); !sameItems(s, phases[0].Items) {
		c.fail(unsupported("phases", "other items in the phase that has begun; update the subscription instead"))
	}
	return phases
}

func sameItems(s *subscription, items []orderItem) bool {
	return len(items) == len(s.Items) && !slices.ContainsFunc(items, func(x orderItem) bool {
		return !slices.ContainsFunc(s.Items, func(o subItem) bool { return o.Price == x.Price && o.Quantity == x.Quantity })
	})
}

// nextPhase ends a phase: the next one's items apply, or the schedule is over.
func (m *mode) nextPhase(r *schedule, s *subscription) {
	if r.Current+1 < len(r.Phases) {
		was := m.scheduleObject(r)
		r.Current++
		p := r.Phases[r.Current]
		m.enterPhase(s, p)
		m.told("subscription_schedule.updated", was, m.scheduleObject(r))
		return
	}
	if r.EndBehavior == "cancel" {
		s.Schedule = ""
		m.cancel(s, "cancellation_requested")
		r.Status, r.CompletedAt = "completed", m.now
		m.emit("subscription_schedule.completed", m.scheduleObject(r))
		return
	}
	m.release(r)
}

// enterPhase changes the subscription to the phase's items. At the end of a
// billing period there is nothing to be prorated: the renewal that follows takes
// the new price.
func (m *mode) enterPhase(s *subscription, p phase) {
	if m.now < s.PeriodEnd {
		a := alteration{items: p.Items, proration: p.Proration, behavior: payLater, at: m.now}
		if bad := m.alter(s, a); bad != nil {
			panic(bad) // it is refused only where the behaviour says so
		}
		return
	}
	was := m.subscriptionObject(s)
	before, after := m.Prices.get(s.Items[0].Price), m.Prices.get(p.Items[0].Price)
	s.Items = m.itemsFrom(s, p.Items)
	if before.Interval != after.Interval || before.IntervalCount != after.IntervalCount {
		s.Anchor = s.PeriodEnd
	}
	maps.Copy(s.Metadata, p.Metadata)
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
}

// release lets the subscription go on by itself.
func (m *mode) release(r *schedule) {
	s := m.Subscriptions.get(r.Subscription)
	r.Status, r.ReleasedAt, r.Released, r.Subscription = "released", m.now, s.ID, ""
	m.emit("subscription_schedule.released", m.scheduleObject(r))
	was := m.subscriptionObject(s)
	s.Schedule = ""
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
}

func (m *mode) scheduleObject(r *schedule) object {
	phases := make([]any, len(r.Phases))
	for k, p := range r.Phases {
		items := make([]any, len(p.Items))
		for n, x := range p.Items {
			items[n] = object{
				"price": x.Price, "quantity": x.Quantity, "metadata": object{}, "discounts": []any{}, "tax_rates": []any{},
				"billing_thresholds": nil,
			}
		}
		phases[k] = object{
			"start_date": p.Start, "end_date": p.End, "items": items, "proration_behavior": p.Proration, "metadata": metadataOf(p.Metadata),
			"currency": m.Prices.get(p.Items[0].Price).Currency, "add_invoice_items": []any{}, "discounts": []any{},
			"application_fee_percent": nil, "billing_cycle_anchor": nil, "billing_thresholds": nil, "collection_method": nil,
			"default_payment_method": nil, "default_tax_rates": []any{}, "description": nil, "invoice_settings": nil, "on_behalf_of": nil,
			"transfer_data": nil, "trial_end": nil,
		}
	}
	o := object{
		"id": r.ID, "object": "subscription_schedule", "livemode": m.Livemode, "created": r.Created, "status": r.Status,
		"customer": r.Customer, "subscription": orNull(r.Subscription), "released_subscription": orNull(r.Released),
		"end_behavior": r.EndBehavior, "metadata": metadataOf(r.Metadata), "phases": phases, "current_phase": nil,
		"canceled_at": timeOrNull(r.CanceledAt), "completed_at": timeOrNull(r.CompletedAt), "released_at": timeOrNull(r.ReleasedAt),
		"billing_mode": billingMode(), "application": nil, "test_clock": nil,
		"default_settings": object{
			"application_fee_percent": nil, "billing_cycle_anchor": "automatic", "billing_thresholds": nil,
			"collection_method": "charge_automatically", "default_payment_method": nil, "description": nil, "on_behalf_of": nil,
			"transfer_data": nil, "invoice_settings": object{"account_tax_ids": nil, "days_until_due": nil, "issuer": object{"type": "self"}},
			"automatic_tax": object{"enabled": false, "disabled_reason": nil, "liability": nil},
		},
	}
	if r.Status == "active" {
		p := r.Phases[r.Current]
		o["current_phase"] = object{"start_date": p.Start, "end_date": p.End}
	}
	return o
}
