package stripefake

import (
	"slices"
	"strings"
)

// A session is open for a day unless its creator wants less, but half an hour.
const (
	sessionTime    = day
	minSessionTime = hour / 2
)

func checkoutEndpoints() []endpoint {
	return []endpoint{
		{"POST", "/v1/checkout/sessions", "mode customer customer_email client_reference_id line_items[].price line_items[].quantity " +
			"success_url cancel_url expires_at metadata.* allow_promotion_codes payment_method_collection locale ui_mode " +
			"automatic_tax.enabled billing_address_collection subscription_data.metadata.* subscription_data.trial_period_days " +
			"subscription_data.trial_end subscription_data.description " +
			"subscription_data.trial_settings.end_behavior.missing_payment_method", createSession},
		{"GET", "/v1/checkout/sessions", listParams + " customer subscription payment_intent status created created.gt created.gte created.lt created.lte", listSessions},
		{"GET", "/v1/checkout/sessions/{id}", "", func(c *call) (object, *apiError) {
			s, bad := c.session(c.id)
			if bad != nil {
				return nil, bad
			}
			return c.sessionObject(s), nil
		}},
		{"GET", "/v1/checkout/sessions/{id}/line_items", listParams, func(c *call) (object, *apiError) {
			s, bad := c.session(c.id)
			if bad != nil {
				return nil, bad
			}
			return paged(c, "/v1/checkout/sessions/"+s.ID+"/line_items", sessionRows(s), func(x *orderRow) object { return c.sessionLine(&x.orderItem) })
		}},
		{"POST", "/v1/checkout/sessions/{id}/expire", "", func(c *call) (object, *apiError) {
			s, bad := c.session(c.id)
			if bad != nil {
				return nil, bad
			}
			if s.Status != "open" {
				return nil, invalid("", "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of %s.", s.Status)
			}
			c.expire(s)
			return c.sessionObject(s), nil
		}},
		{"POST", "/v1/billing_portal/sessions", "customer return_url configuration locale flow_data.type " +
			"flow_data.subscription_cancel.subscription flow_data.subscription_update.subscription", createPortal},
	}
}

// orderRow is a line of a session as a row of a list.
type orderRow struct{ orderItem }

func (x *orderRow) key() string { return x.ID }

func sessionRows(s *session) []*orderRow {
	rows := make([]*orderRow, len(s.Lines))
	for k, x := range s.Lines {
		rows[k] = &orderRow{x}
	}
	return rows
}

func (m *mode) session(id string) (*session, *apiError) {
	if s := m.Sessions.get(id); s != nil {
		return s, nil
	}
	return nil, noSuch("checkout.session", id, "id")
}

func createSession(c *call) (object, *apiError) {
	if c.need("mode") != "subscription" {
		c.fail(unsupported("mode", "sessions that are not for a subscription"))
	}
	s := &session{
		Customer: c.str("customer"), CustomerEmail: c.str("customer_email"), Reference: c.str("client_reference_id"),
		SuccessURL: c.need("success_url"), CancelURL: c.str("cancel_url"), Locale: c.str("locale"), Metadata: c.metadata("metadata", nil),
		Promotions: c.boolean("allow_promotion_codes", false), Created: c.now, ExpiresAt: c.integer("expires_at", c.now+sessionTime),
		CollectAlways: c.word("payment_method_collection", "always", "if_required") == "always", Status: "open", PaymentStatus: "unpaid",
	}
	c.word("ui_mode", "hosted_page")
	c.word("billing_address_collection", "auto")
	if c.in("automatic_tax").boolean("enabled", false) {
		c.fail(unsupported("automatic_tax[enabled]", "taxes"))
	}
	c.readOrder(c.in("subscription_data"), &s.Data)
	s.Lines = c.readItems("line_items", c.each("line_items"))
	if s.ExpiresAt < c.now+minSessionTime || s.ExpiresAt > c.now+sessionTime {
		c.fail(invalid("expires_at", "The `expires_at` timestamp must be at least 30 minutes and less than 24 hours from Checkout Session creation."))
	}
	if s.Customer != "" && s.CustomerEmail != "" {
		c.fail(invalid("customer", "You may only specify one of these parameters: customer, customer_email."))
	}
	if end := s.Data.TrialEnd; end != 0 && end < c.now+2*day {
		c.fail(invalid("subscription_data[trial_end]", "The `trial_end` date has to be at least 2 days in the future."))
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if s.Customer != "" {
		if _, bad := c.customer(s.Customer, "customer"); bad != nil {
			return nil, bad
		}
	}
	mode := "test"
	if c.Livemode {
		mode = "live"
	}
	s.ID = c.mode.id("cs_"+mode+"_", secretID)
	for k := range s.Lines {
		s.Lines[k].ID = c.mode.id("li_1", longID-1)
	}
	s.Data.Customer = s.Customer
	c.Sessions.add(s)
	return c.sessionObject(s), nil
}

func listSessions(c *call) (object, *apiError) {
	owner, sub, p, span := c.str("customer"), c.str("subscription"), c.str("payment_intent"), c.span("created")
	status := c.word("status", "", "complete", "expired", "open")
	return listed(c, "/v1/checkout/sessions", &c.Sessions, func(s *session) bool {
		return (owner == "" || s.Customer == owner) && (sub == "" || s.Subscription == sub) && p == "" &&
			(status == "" || s.Status == status) && (span == nil || span(s.Created))
	}, c.sessionObject)
}

func (m *mode) expire(s *session) {
	s.Status = "expired"
	m.emit("checkout.session.expired", m.sessionObject(s))
}

// amount is what the lines of the session cost for a period.
func (m *mode) amount(s *session) int64 {
	var sum int64
	for _, x := range s.Lines {
		sum += m.Prices.get(x.Price).Amount * x.Quantity
	}
	return sum
}

// dueNow is what is charged when the session is completed.
func (m *mode) dueNow(s *session) int64 {
	if s.Data.TrialDays > 0 || s.Data.TrialEnd > m.now {
		return 0
	}
	return m.amount(s)
}

// complete pays a session with a card and makes its subscription. Without a
// card it is completed only if none is needed.
func (m *mode) complete(s *session, card *Card) *decline {
	due := m.dueNow(s)
	if card != nil {
		if d := m.tryCard(s, card, due); d != nil {
			return d
		}
	}
	if s.Customer == "" {
		s.Customer = m.newCustomer(&customer{Email: s.CustomerEmail, Metadata: map[string]string{}, Created: m.now}).ID
	}
	o := s.Data
	o.Customer, o.Items, o.Behavior = s.Customer, slices.Clone(s.Lines), payLater
	for k := range o.Items {
		o.Items[k].ID = ""
	}
	if card != nil {
		r := m.newMethod(card)
		m.attach(r, s.Customer)
		o.Method = r.ID
	}
	sub, bad := m.create(o)
	if bad != nil {
		return &decline{Code: bad.Code, DeclineCode: bad.DeclineCode, Message: bad.Message}
	}
	s.Status, s.Subscription, s.Invoice, s.PaymentStatus = "complete", sub.ID, sub.LatestInvoice, "paid"
	if due == 0 {
		s.PaymentStatus = "no_payment_required"
	}
	m.emit("checkout.session.completed", m.sessionObject(s))
	return nil
}

// tryCard is how the card is refused, or nil. What was tried is told.
func (m *mode) tryCard(s *session, card *Card, due int64) *decline {
	d := card.declines()
	if c := m.Customers.get(s.Customer); c != nil && c.Failing != "" {
		d = newDecline("card_declined", c.Failing)
	}
	if d == nil || due == 0 && !card.AtOnce {
		return nil
	}
	if due == 0 {
		return d
	}
	currency := m.Prices.get(s.Lines[0].Price).Currency
	p := m.Intents.add(&intent{
		ID: m.id("pi_3", longID-1), Customer: s.Customer, Currency: currency, Amount: due, Status: "requires_payment_method",
		Created: m.now, Secret: m.digest("secret", m.Sequence, longID),
	})
	c := m.Charges.add(&charge{
		ID: m.id("ch_3", longID-1), Customer: s.Customer, Currency: currency, Amount: due, Intent: p.ID, Created: m.now, Failure: d,
	})
	d.Charge, p.Charge, p.Error = c.ID, c.ID, d
	m.emit("charge.failed", m.chargeObject(c))
	m.emit("payment_intent.payment_failed", m.intentObject(p))
	return d
}

func (m *mode) sessionLine(x *orderItem) object {
	p := m.Prices.get(x.Price)
	sum := p.Amount * x.Quantity
	return object{
		"id": x.ID, "object": "item", "price": m.priceObject(p), "quantity": x.Quantity, "currency": p.Currency,
		"description": m.Products.get(p.Product).Name, "amount_subtotal": sum, "amount_total": sum, "amount_tax": 0, "amount_discount": 0,
	}
}

func (m *mode) sessionLines(s *session) object {
	data := make([]any, len(s.Lines))
	for k := range s.Lines {
		data[k] = m.sessionLine(&s.Lines[k])
	}
	return listOf("/v1/checkout/sessions/"+s.ID+"/line_items", data, false)
}

func (m *mode) sessionObject(s *session) object {
	o := object{
		"id": s.ID, "object": "checkout.session", "livemode": m.Livemode, "created": s.Created, "expires_at": s.ExpiresAt,
		"mode": "subscription", "status": s.Status, "payment_status": s.PaymentStatus, "customer": orNull(s.Customer),
		"customer_email": orNull(s.CustomerEmail), "client_reference_id": orNull(s.Reference), "metadata": metadataOf(s.Metadata),
		"success_url": s.SuccessURL, "cancel_url": orNull(s.CancelURL), "url": nil, "subscription": orNull(s.Subscription),
		"invoice": orNull(s.Invoice), "amount_subtotal": m.amount(s), "amount_total": m.dueNow(s),
		"currency": m.Prices.get(s.Lines[0].Price).Currency, "allow_promotion_codes": s.Promotions, "locale": orNull(s.Locale),
		"ui_mode": "hosted_page", "payment_method_types": []any{"card"}, "payment_method_collection": "if_required",
		"automatic_tax": noTax(), "custom_fields": []any{}, "shipping_options": []any{},
		"custom_text": object{
			"after_submit": nil, "shipping_address": nil, "submit": nil, "terms_of_service_acceptance": nil,
		},
		"billing_address_collection": nil, "client_secret": nil, "consent": nil, "consent_collection": nil, "customer_creation": nil,
		"customer_details": nil, "payment_intent": nil, "setup_intent": nil, "payment_link": nil, "recovered_from": nil,
		"submit_type": nil, "shipping_cost": nil, "after_expiration": nil, "discounts": nil, "invoice_creation": nil,
		"total_details": object{"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
	}
	if s.CollectAlways {
		o["payment_method_collection"] = "always"
	}
	if s.Status == "open" {
		o["url"] = m.fake.options.BaseURL + "/pay/" + s.ID
	}
	if c := m.Customers.get(s.Customer); c != nil && s.Status == "complete" {
		o["customer_details"] = object{
			"email": orNull(c.Email), "name": orNull(c.Name), "phone": orNull(c.Phone), "address": nil, "tax_exempt": "none", "tax_ids": []any{},
			"business_name": nil, "individual_name": nil,
		}
	}
	return o
}

// successAddress is where the payer goes, with the session's id filled in.
func (s *session) successAddress() string {
	return strings.ReplaceAll(s.SuccessURL, "{CHECKOUT_SESSION_ID}", s.ID)
}

func createPortal(c *call) (object, *apiError) {
	r := &portal{
		Customer: c.need("customer"), ReturnURL: c.str("return_url"), Locale: c.str("locale"), Configuration: c.str("configuration"), Created: c.now,
	}
	if flow := c.in("flow_data"); flow.values != nil {
		r.Flow = flow.word("type", "", "payment_method_update", "subscription_cancel", "subscription_update")
		if strings.HasPrefix(r.Flow, "subscription_") {
			r.FlowSubscription = flow.in(r.Flow).need("subscription")
			if s := c.Subscriptions.get(r.FlowSubscription); s == nil || s.Customer != r.Customer {
				c.fail(noSuch("subscription", r.FlowSubscription, "flow_data["+r.Flow+"][subscription]"))
			}
		}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if _, bad := c.customer(r.Customer, "customer"); bad != nil {
		return nil, bad
	}
	if r.Configuration == "" {
		r.Configuration = "bpc_1" + c.digest("bpc", 0, longID-1)
	}
	r.ID, r.Token = c.mode.id("bps_1", longID-1), c.mode.id("", secretID)
	r.Opened = c.fake.wallClock().Unix()
	c.Portals.add(r)
	return c.portalObject(r), nil
}

func (m *mode) portalObject(r *portal) object {
	o := object{
		"id": r.ID, "object": "billing_portal.session", "livemode": m.Livemode, "created": r.Created, "customer": r.Customer,
		"configuration": r.Configuration, "return_url": orNull(r.ReturnURL), "locale": orNull(r.Locale), "on_behalf_of": nil,
		"url": m.fake.options.BaseURL + "/portal/" + r.Token, "flow": nil,
	}
	if r.Flow != "" {
		flow := object{"type": r.Flow, "after_completion": object{"type": "portal_homepage", "hosted_confirmation": nil, "redirect": nil},
			"subscription_cancel": nil, "subscription_update": nil, "subscription_update_confirm": nil}
		switch r.Flow {
		case "subscription_cancel":
			flow[r.Flow] = object{"subscription": r.FlowSubscription, "retention": nil}
		case "subscription_update":
			flow[r.Flow] = object{"subscription": r.FlowSubscription}
		}
		o["flow"] = flow
	}
	return o
}
