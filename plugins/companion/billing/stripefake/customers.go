package stripefake

import "strings"

func customerEndpoints() []endpoint {
	const fields = " email name description phone metadata.* invoice_settings.default_payment_method"
	return []endpoint{
		{"POST", "/v1/customers", fields, createCustomer},
		{"GET", "/v1/customers", listParams + " email created created.gt created.gte created.lt created.lte", func(c *call) (object, *apiError) {
			email, created := c.str("email"), c.span("created")
			return listed(c, "/v1/customers", &c.Customers, func(r *customer) bool {
				return !r.Deleted && (email == "" || r.Email == email) && (created == nil || created(r.Created))
			}, c.customerObject)
		}},
		{"GET", "/v1/customers/{id}", "", func(c *call) (object, *apiError) {
			r := c.Customers.get(c.id)
			if r == nil {
				return nil, c.noSuchCustomer(c.id, "id")
			}
			return c.customerObject(r), nil
		}},
		{"POST", "/v1/customers/{id}", fields, updateCustomer},
		{"DELETE", "/v1/customers/{id}", "", deleteCustomer},
	}
}

func createCustomer(c *call) (object, *apiError) {
	r := &customer{
		Email: c.str("email"), Name: c.str("name"), Description: c.str("description"), Phone: c.str("phone"),
		Metadata: c.metadata("metadata", nil), Created: c.now,
	}
	if c.in("invoice_settings").str("default_payment_method") != "" {
		c.fail(unsupported("invoice_settings[default_payment_method]", "a default at creation; attach the payment method first"))
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.customerObject(c.newCustomer(r)), nil
}

func (m *mode) newCustomer(r *customer) *customer {
	r.ID = m.id("cus_", shortID)
	r.InvoicePrefix = strings.ToUpper(m.digest("invoice", m.Sequence, 8))
	m.Customers.add(r)
	m.emit("customer.created", m.customerObject(r))
	return r
}

func updateCustomer(c *call) (object, *apiError) {
	r, bad := c.customer(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	was, next := c.customerObject(r), *r
	for name, field := range map[string]*string{
		"email": &next.Email, "name": &next.Name, "description": &next.Description, "phone": &next.Phone,
	} {
		if c.has(name) {
			*field = c.str(name)
		}
	}
	next.Metadata = c.metadata("metadata", r.Metadata)
	if in := c.in("invoice_settings"); in.has("default_payment_method") {
		next.DefaultMethod = in.str("default_payment_method")
		if p := c.Methods.get(next.DefaultMethod); next.DefaultMethod != "" && (p == nil || p.Customer != r.ID) {
			c.fail(noSuch("PaymentMethod", next.DefaultMethod, "invoice_settings[default_payment_method]"))
		}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	*r = next
	c.told("customer.updated", was, c.customerObject(r))
	return c.customerObject(r), nil
}

// deleteCustomer ends all subscriptions with the customer, as at Stripe.
func deleteCustomer(c *call) (object, *apiError) {
	r, bad := c.customer(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	for _, s := range c.Subscriptions.rows {
		if s.Customer == r.ID && !s.over() {
			c.cancel(s, "cancellation_requested")
		}
	}
	was := c.customerObject(r)
	r.Deleted = true
	c.emit("customer.deleted", was)
	return c.customerObject(r), nil
}

// customer is one that is there and not deleted.
func (m *mode) customer(id, param string) (*customer, *apiError) {
	r := m.Customers.get(id)
	if r == nil || r.Deleted {
		return nil, m.noSuchCustomer(id, param)
	}
	return r, nil
}

// noSuchCustomer says so if the customer is one of the other mode.
func (m *mode) noSuchCustomer(id, param string) *apiError {
	e := noSuch("customer", id, param)
	here, there := "test", "live"
	other := m.fake.state.Live
	if m.Livemode {
		here, there, other = "live", "test", m.fake.state.Test
	}
	if other.Customers.get(id) != nil {
		e.Message += "; a similar object exists in " + there + " mode, but a " + here + " mode key was used to make this request."
	}
	return e
}

func (m *mode) customerObject(r *customer) object {
	if r.Deleted {
		return object{"id": r.ID, "object": "customer", "deleted": true}
	}
	delinquent := false
	for _, i := range m.Invoices.rows {
		if i.Customer == r.ID && i.Status == "open" && i.Attempts > 0 {
			delinquent = true
		}
	}
	return object{
		"id": r.ID, "object": "customer", "livemode": m.Livemode, "created": r.Created,
		"email": orNull(r.Email), "name": orNull(r.Name), "description": orNull(r.Description), "phone": orNull(r.Phone),
		"metadata": metadataOf(r.Metadata), "balance": r.Balance, "currency": orNull(r.Currency), "delinquent": delinquent,
		"address": nil, "default_source": nil, "discount": nil, "shipping": nil, "preferred_locales": []any{}, "tax_exempt": "none",
		"test_clock": nil, "invoice_prefix": r.InvoicePrefix, "next_invoice_sequence": r.InvoiceSequence + 1,
		"invoice_settings": object{
			"custom_fields": nil, "default_payment_method": orNull(r.DefaultMethod), "footer": nil, "rendering_options": nil,
		},
	}
}

func (m *mode) customerSubscriptions(id string) object {
	var data []any
	for _, s := range m.Subscriptions.newest(func(s *subscription) bool { return s.Customer == id && !s.over() }) {
		data = append(data, m.subscriptionObject(s))
	}
	return listOf("/v1/customers/"+id+"/subscriptions", data, false)
}
