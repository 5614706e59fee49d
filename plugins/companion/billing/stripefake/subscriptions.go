package stripefake

import (
	"slices"
	"strings"
)

const itemParams = "items[].price items[].quantity items[].metadata.* "

func subscriptionEndpoints() []endpoint {
	const update = "default_payment_method metadata.* description cancel_at cancel_at_period_end trial_end proration_behavior " +
		"payment_behavior off_session trial_settings.end_behavior.missing_payment_method collection_method " +
		"payment_settings.save_default_payment_method "
	return []endpoint{
		{"POST", "/v1/subscriptions", update + itemParams + "customer trial_period_days", createSubscription},
		{"GET", "/v1/subscriptions", listParams + " customer status price created created.gt created.gte created.lt created.lte " +
			"current_period_end current_period_end.gt current_period_end.gte current_period_end.lt current_period_end.lte", listSubscriptions},
		{"GET", "/v1/subscriptions/{id}", "", func(c *call) (object, *apiError) {
			s, bad := c.subscription(c.id, "id")
			if bad != nil {
				return nil, bad
			}
			return c.subscriptionObject(s), nil
		}},
		{"POST", "/v1/subscriptions/{id}", update + itemParams + "items[].id items[].deleted billing_cycle_anchor proration_date " +
			"cancellation_details.comment cancellation_details.feedback", updateSubscription},
		{"DELETE", "/v1/subscriptions/{id}", "invoice_now prorate cancellation_details.comment cancellation_details.feedback", cancelSubscription},
		{"POST", "/v1/subscriptions/{id}/resume", "billing_cycle_anchor proration_behavior", resumeSubscription},
		{"GET", "/v1/subscription_items", listParams + " subscription", func(c *call) (object, *apiError) {
			s, bad := c.subscription(c.need("subscription"), "subscription")
			if bad != nil {
				return nil, bad
			}
			rows := make([]*itemOf, len(s.Items))
			for k := range s.Items {
				rows[k] = &itemOf{s.Items[k], s}
			}
			return paged(c, "/v1/subscription_items", rows, func(x *itemOf) object { return c.itemObject(x.s, &x.subItem) })
		}},
	}
}

// itemOf is an item as a row of a list.
type itemOf struct {
	subItem
	s *subscription
}

func (x *itemOf) key() string { return x.ID }

func (m *mode) subscription(id, param string) (*subscription, *apiError) {
	if s := m.Subscriptions.get(id); s != nil {
		return s, nil
	}
	return nil, noSuch("subscription", id, param)
}

func createSubscription(c *call) (object, *apiError) {
	o := order{Customer: c.need("customer"), Method: c.str("default_payment_method"), CancelAtPeriodEnd: c.boolean("cancel_at_period_end", false)}
	o.Behavior = c.word("payment_behavior", payLater, payOrFail, payByPage)
	o.CancelAt = c.integer("cancel_at", 0)
	c.readCommon()
	c.readOrder(c.reader, &o)
	if err := c.err(); err != nil {
		return nil, err
	}
	if _, bad := c.customer(o.Customer, "customer"); bad != nil {
		return nil, bad
	}
	if r := c.Methods.get(o.Method); o.Method != "" && (r == nil || r.Customer != o.Customer) {
		return nil, noSuch("PaymentMethod", o.Method, "default_payment_method")
	}
	if o.CancelAt != 0 && o.CancelAt <= c.now {
		return nil, invalid("cancel_at", "Invalid timestamp: must be in the future")
	}
	o.Items = c.readItems("items", c.each("items"))
	if err := c.err(); err != nil {
		return nil, err
	}
	s, bad := c.create(o)
	if bad != nil {
		return nil, bad
	}
	return c.subscriptionObject(s), nil
}

// readCommon checks what is accepted because it says what the fake does anyway.
func (c *call) readCommon() {
	c.boolean("off_session", true)
	c.word("collection_method", "charge_automatically")
	c.in("payment_settings").word("save_default_payment_method", "", "off", "on_subscription")
}

func listSubscriptions(c *call) (object, *apiError) {
	owner, of, created, ends := c.str("customer"), c.str("price"), c.span("created"), c.span("current_period_end")
	status := c.word("status", "", "active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid")
	return listed(c, "/v1/subscriptions", &c.Subscriptions, func(s *subscription) bool {
		matches := s.Status == status
		switch status {
		case "":
			matches = s.Status != "canceled"
		case "all":
			matches = true
		case "ended":
			matches = s.over()
		}
		return matches && (owner == "" || s.Customer == owner) && (created == nil || created(s.Created)) && (ends == nil || ends(s.PeriodEnd)) &&
			(of == "" || slices.ContainsFunc(s.Items, func(x subItem) bool { return x.Price == of }))
	}, c.subscriptionObject)
}

func updateSubscription(c *call) (object, *apiError) {
	s, bad := c.subscription(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	next := *s
	next.Metadata = c.metadata("metadata", s.Metadata)
	if c.has("description") {
		next.Description = c.str("description")
	}
	details := c.in("cancellation_details")
	if details.has("comment") {
		next.Comment = details.str("comment")
	}
	if details.has("feedback") {
		next.Feedback = details.str("feedback")
	}
	if s.over() {
		return c.annotate(s, next)
	}
	c.readCommon()
	if c.has("default_payment_method") {
		next.DefaultMethod = c.str("default_payment_method")
		if r := c.Methods.get(next.DefaultMethod); r == nil || r.Customer != s.Customer {
			c.fail(noSuch("PaymentMethod", next.DefaultMethod, "default_payment_method"))
		}
	}
	if c.has("trial_settings") {
		next.MissingMethod = c.in("trial_settings").in("end_behavior").word("missing_payment_method", "create_invoice", "cancel", "pause")
	}
	c.readEnding(s, &next)
	c.readTrialEnd(s, &next)
	change := c.readAlteration(s, c.each("items"))
	if err := c.err(); err != nil {
		return nil, err
	}
	was, keep := c.subscriptionObject(s), *s
	*s = next
	if change != nil {
		if bad := c.alter(s, *change); bad != nil {
			*s = keep // one request, all or nothing
			return nil, bad
		}
	}
	if c.str("trial_end") == "now" && s.Status == "trialing" {
		s.TrialEnd, s.Anchor, s.PeriodEnd = c.now, c.now, c.now
		c.renewNow(s)
	}
	if change == nil {
		c.told("customer.subscription.updated", was, c.subscriptionObject(s))
	}
	return c.subscriptionObject(s), nil
}

// renewNow is a renewal whose invoice is collected at once.
func (m *mode) renewNow(s *subscription) {
	m.renew(s)
	if i := m.Invoices.get(s.LatestInvoice); i.Status == "draft" && i.FinalizeAt != 0 {
		m.finalizeAndCollect(i)
	}
}

// annotate changes what may still be changed of a subscription that is over.
func (c *call) annotate(s *subscription, next subscription) (object, *apiError) {
	for _, name := range c.names {
		if name != "metadata" && name != "cancellation_details" && name != "expand" {
			e := invalid(name, "A canceled subscription can only update its cancellation_details and metadata.")
			e.Code = "invalid_canceled_subscription_fields"
			return nil, e
		}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	was := c.subscriptionObject(s)
	s.Metadata, s.Comment, s.Feedback = next.Metadata, next.Comment, next.Feedback
	c.told("customer.subscription.updated", was, c.subscriptionObject(s))
	return c.subscriptionObject(s), nil
}

// readEnding reads when the subscription is to end.
func (c *call) readEnding(s, next *subscription) {
	if !c.has("cancel_at_period_end") && !c.has("cancel_at") {
		return
	}
	if s.Schedule != "" {
		c.fail(invalid("cancel_at_period_end", "The subscription is managed by the subscription schedule `%s`, and updating any "+
			"cancelation behavior directly is not allowed. Please update the schedule instead.", s.Schedule))
		return
	}
	at := int64(0)
	switch text := c.str("cancel_at"); {
	case text == "min_period_end" || text == "max_period_end":
		at = s.PeriodEnd
	case text != "":
		if at = c.integer("cancel_at", 0); at <= c.now {
			c.fail(invalid("cancel_at", "Invalid timestamp: must be in the future"))
		}
	}
	if c.boolean("cancel_at_period_end", false) {
		if at != 0 {
			c.fail(invalid("cancel_at", "You may only specify one of these parameters: cancel_at, cancel_at_period_end."))
		}
		if !s.CancelAtPeriodEnd {
			c.endWithPeriod(next)
		}
		return
	}
	next.CancelAtPeriodEnd, next.CancelAt, next.CanceledAt, next.Reason = false, at, 0, ""
	if at != 0 {
		next.CanceledAt, next.Reason = c.now, "cancellation_requested"
	}
}

// readTrialEnd reads a longer or shorter trial; "now" is done after all else.
func (c *call) readTrialEnd(s, next *subscription) {
	text := c.str("trial_end")
	if text == "" || text == "now" {
		return
	}
	end := c.integer("trial_end", 0)
	switch {
	case s.Status != "trialing":
		c.fail(unsupported("trial_end", "a trial for a subscription that is not in one"))
	case end <= c.now:
		c.fail(invalid("trial_end", "Invalid timestamp: must be in the future"))
	default:
		next.TrialEnd, next.Anchor, next.PeriodEnd, next.TrialEndTold = end, end, end, false
		if next.CancelAtPeriodEnd {
			next.CancelAt = end
		}
	}
}

// readAlteration reads other items or a new billing period; nil if there is
// neither.
func (c *call) readAlteration(s *subscription, sent []reader) *alteration {
	a := alteration{
		proration: c.word("proration_behavior", prorateLater, prorateNow, prorateNever),
		behavior:  c.word("payment_behavior", payLater, payOrFail, payOrWait, payByPage),
		at:        c.integer("proration_date", c.now),
		restart:   c.word("billing_cycle_anchor", "unchanged", "now") == "now",
	}
	if len(sent) == 0 && !a.restart {
		return nil
	}
	if a.at > c.now || a.at < s.PeriodStart {
		c.fail(invalid("proration_date", "Invalid proration_date: it must lie in the current billing period"))
	}
	if s.Status == "incomplete" {
		c.fail(invalid("items", "You can't update a subscription in `incomplete` status in a way that results in a new invoice being created"))
	}
	if a.behavior == payOrWait {
		for _, name := range c.names {
			if strings.HasPrefix(name, "metadata") || strings.HasPrefix(name, "cancel_at") || name == "default_payment_method" {
				c.fail(invalid(name, "When `payment_behavior` is set to `pending_if_incomplete`, `%s` cannot be updated.", name))
			}
		}
	}
	a.items = c.readChanges(s, sent)
	return &a
}

// readChanges is what the items are after the changes: those that are not named
// stay as they are.
func (c *call) readChanges(s *subscription, sent []reader) []orderItem {
	var items []orderItem
	for _, x := range s.Items {
		items = append(items, orderItem{x.ID, x.Price, x.Quantity})
	}
	for _, r := range sent {
		id := r.str("id")
		k := slices.IndexFunc(items, func(x orderItem) bool { return x.ID == id })
		switch {
		case id != "" && k < 0:
			c.fail(noSuch("subscription item", id, r.name("id")))
		case id != "" && r.boolean("deleted", false):
			items = slices.Delete(items, k, k+1)
		case id != "":
			if p := r.str("price"); p != "" {
				items[k].Price = p
			}
			items[k].Quantity = r.integer("quantity", items[k].Quantity)
		default:
			items = append(items, orderItem{Price: r.need("price"), Quantity: r.integer("quantity", 1)})
		}
	}
	if len(items) == 0 {
		c.fail(invalid("items", "A subscription must have at least one active plan. To cancel the subscription, use the cancel API."))
	}
	if c.err() == nil {
		changed := slices.ContainsFunc(items, func(x orderItem) bool {
			return !slices.ContainsFunc(s.Items, func(o subItem) bool { return o.Price == x.Price })
		})
		if bad := c.checkItems("items", items); changed && bad != nil {
			c.fail(bad)
		}
	}
	return items
}

func cancelSubscription(c *call) (object, *apiError) {
	s, bad := c.subscription(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	prorate, invoiceNow := c.boolean("prorate", false), c.boolean("invoice_now", false)
	details := c.in("cancellation_details")
	comment, feedback := details.str("comment"), details.str("feedback")
	if err := c.err(); err != nil {
		return nil, err
	}
	if s.over() {
		return nil, noSuch("subscription", c.id, "id")
	}
	s.Comment, s.Feedback = comment, feedback
	lines := s.Pending
	if prorate && s.Status != "trialing" {
		lines = append(lines, c.unused(s, s.Items, c.now, s.PeriodEnd)...)
	}
	c.cancel(s, "cancellation_requested")
	if invoiceNow && len(lines) > 0 {
		c.bill(s, "subscription_update", lines)
	}
	return c.subscriptionObject(s), nil
}

func resumeSubscription(c *call) (object, *apiError) {
	s, bad := c.subscription(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	c.word("billing_cycle_anchor", "now")
	c.word("proration_behavior", prorateLater, prorateNow, prorateNever)
	if err := c.err(); err != nil {
		return nil, err
	}
	if s.Status != "paused" {
		return nil, invalid("", "Subscriptions can only be resumed when they are paused; this one is %s.", s.Status)
	}
	was := c.subscriptionObject(s)
	s.Anchor, s.PeriodStart, s.PeriodEnd = c.now, c.now, c.Prices.get(s.Items[0].Price).endOf(c.now)
	i := c.draft(s, "subscription_update", c.periodLines(s, s.Items, s.PeriodStart, s.PeriodEnd))
	c.told("customer.subscription.updated", was, c.subscriptionObject(s))
	c.finalize(i)
	c.collect(i, c.methodFor(s.Customer, s.DefaultMethod))
	return c.subscriptionObject(s), nil
}
