package stripefake

import (
	"maps"
	"slices"
	"strconv"
)

func invoiceEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/v1/invoices", listParams + " customer subscription status created created.gt created.gte created.lt created.lte", func(c *call) (object, *apiError) {
			owner, sub, span := c.str("customer"), c.str("subscription"), c.span("created")
			status := c.word("status", "", "draft", "open", "paid", "uncollectible", "void")
			return listed(c, "/v1/invoices", &c.Invoices, func(r *invoice) bool {
				return (owner == "" || r.Customer == owner) && (sub == "" || r.Subscription == sub) &&
					(status == "" || r.Status == status) && (span == nil || span(r.Created))
			}, c.invoiceObject)
		}},
		{"POST", "/v1/invoices/create_preview", "customer subscription preview_mode subscription_details.items[].id " +
			"subscription_details.items[].price subscription_details.items[].quantity subscription_details.items[].deleted " +
			"subscription_details.proration_behavior subscription_details.proration_date subscription_details.billing_cycle_anchor " +
			"subscription_details.cancel_at_period_end subscription_details.trial_end", previewInvoice},
		{"GET", "/v1/invoices/{id}", "", func(c *call) (object, *apiError) {
			i, bad := c.invoice(c.id)
			if bad != nil {
				return nil, bad
			}
			return c.invoiceObject(i), nil
		}},
		{"GET", "/v1/invoices/{id}/lines", listParams, func(c *call) (object, *apiError) {
			i, bad := c.invoice(c.id)
			if bad != nil {
				return nil, bad
			}
			return paged(c, "/v1/invoices/"+i.ID+"/lines", linesOf(i), func(l *lineOf) object { return c.lineObject(l.i, &l.line) })
		}},
		{"POST", "/v1/invoices/{id}/pay", "payment_method off_session paid_out_of_band", payInvoice},
		{"POST", "/v1/invoices/{id}/finalize", "auto_advance", func(c *call) (object, *apiError) {
			return c.settleInvoice("draft", "finalized", func(i *invoice) { c.finalize(i) })
		}},
		{"POST", "/v1/invoices/{id}/void", "", func(c *call) (object, *apiError) {
			return c.settleInvoice("open", "voided", func(i *invoice) { c.void(i) })
		}},
		{"POST", "/v1/invoices/{id}/mark_uncollectible", "", func(c *call) (object, *apiError) {
			return c.settleInvoice("open", "marked as uncollectible", func(i *invoice) {
				i.Status, i.WrittenOff, i.NextAttempt = "uncollectible", c.now, 0
				c.emit("invoice.marked_uncollectible", c.invoiceObject(i))
			})
		}},
		{"GET", "/v1/invoice_payments", listParams + " invoice status payment.type payment.payment_intent", listPayments},
	}
}

func (m *mode) invoice(id string) (*invoice, *apiError) {
	if i := m.Invoices.get(id); i != nil {
		return i, nil
	}
	return nil, noSuch("invoice", id, "id")
}

// settleInvoice does something to an invoice that must have the status.
func (c *call) settleInvoice(status, what string, do func(*invoice)) (object, *apiError) {
	i, bad := c.invoice(c.id)
	if bad != nil {
		return nil, bad
	}
	if i.Status != status {
		return nil, invalid("", "This invoice is %s: only %s invoices can be %s.", i.Status, status, what)
	}
	do(i)
	return c.invoiceObject(i), nil
}

func payInvoice(c *call) (object, *apiError) {
	i, bad := c.invoice(c.id)
	if bad != nil {
		return nil, bad
	}
	given, outside := c.str("payment_method"), c.boolean("paid_out_of_band", false)
	if err := c.err(); err != nil {
		return nil, err
	}
	switch i.Status {
	case "draft":
		c.finalize(i)
	case "open", "uncollectible":
	case "paid":
		e := invalid("", "Invoice is already paid")
		e.Code = "invoice_already_paid"
		return nil, e
	default:
		return nil, invalid("", "Invoices with status %s cannot be paid.", i.Status)
	}
	if outside {
		c.paid(i)
		return c.invoiceObject(i), nil
	}
	own := given
	if s := c.Subscriptions.get(i.Subscription); s != nil && own == "" {
		own = s.DefaultMethod
	}
	r := c.methodFor(i.Customer, own)
	if given != "" && (r == nil || r.ID != given) {
		return nil, noSuch("PaymentMethod", given, "payment_method")
	}
	if d := c.collect(i, r); d != nil {
		if d.Code == "" {
			return nil, noMethod(d)
		}
		return nil, d.refusal()
	}
	return c.invoiceObject(i), nil
}

// noMethod is the answer where there is nothing to pay with.
func noMethod(d *decline) *apiError {
	e := invalid("", "%s", d.Message)
	e.Code = "resource_missing"
	return e
}

func listPayments(c *call) (object, *apiError) {
	of, status := c.str("invoice"), c.word("status", "", "open", "paid", "canceled")
	in := c.in("payment")
	p := in.str("payment_intent")
	if in.values != nil {
		in.word("type", "payment_intent")
	}
	rows := c.Invoices.newest(func(i *invoice) bool {
		return i.Intent != "" && (of == "" || i.ID == of) && (p == "" || i.Intent == p) && (status == "" || paymentStatus(i) == status)
	})
	payments := make([]*paymentOf, len(rows))
	for k, i := range rows {
		payments[k] = &paymentOf{i}
	}
	return paged(c, "/v1/invoice_payments", payments, func(x *paymentOf) object { return c.paymentObject(x.invoice) })
}

// paymentOf is the payment of an invoice as a row.
type paymentOf struct{ *invoice }

func (p *paymentOf) key() string { return paymentID(p.invoice) }

// paymentID follows from the invoice's: it has one payment, by its intent.
func paymentID(i *invoice) string { return "inpay_" + i.ID[len("in_"):] }

func paymentStatus(i *invoice) string {
	switch i.Status {
	case "paid":
		return "paid"
	case "void":
		return "canceled"
	default:
		return "open"
	}
}

func (m *mode) paymentObject(i *invoice) object {
	o := object{
		"id": paymentID(i), "object": "invoice_payment", "livemode": m.Livemode, "created": i.FinalizedAt, "currency": i.Currency,
		"invoice": i.ID, "amount_requested": i.due(), "amount_paid": nil, "is_default": true, "status": paymentStatus(i),
		"payment":            object{"type": "payment_intent", "payment_intent": i.Intent},
		"status_transitions": object{"paid_at": timeOrNull(i.PaidAt), "canceled_at": timeOrNull(i.VoidedAt)},
	}
	if i.Status == "paid" {
		o["amount_paid"] = i.Paid
	}
	return o
}

func (m *mode) paymentList(i *invoice) object {
	var data []any
	if i.Intent != "" {
		data = []any{m.paymentObject(i)}
	}
	return listOf("/v1/invoice_payments?invoice="+i.ID, data, false)
}

// confirmation is what a page confirms the first payment with.
func (m *mode) confirmation(i *invoice) any {
	p := m.Intents.get(i.Intent)
	if p == nil {
		return nil
	}
	return object{"client_secret": m.intentObject(p)["client_secret"], "type": "payment_intent"}
}

func (m *mode) invoiceObject(i *invoice) object {
	lines := make([]any, len(i.Lines))
	for k := range i.Lines {
		lines[k] = m.lineObject(i, &i.Lines[k])
	}
	o := m.invoiceMoney(i)
	maps.Copy(o, object{
		"id": i.ID, "object": "invoice", "livemode": m.Livemode, "created": i.Created, "status": i.Status, "customer": i.Customer,
		"currency": i.Currency, "number": orNull(i.Number), "billing_reason": i.Reason, "collection_method": "charge_automatically",
		"attempt_count": i.Attempts, "attempted": i.Attempts > 0, "auto_advance": i.NextAttempt != 0 || i.FinalizeAt != 0,
		"automatically_finalizes_at": timeOrNull(i.FinalizeAt), "next_payment_attempt": timeOrNull(i.NextAttempt),
		"period_start": i.PeriodStart, "period_end": i.PeriodEnd, "lines": listOf("/v1/invoices/"+i.ID+"/lines", lines, false),
		"status_transitions": object{
			"finalized_at": timeOrNull(i.FinalizedAt), "paid_at": timeOrNull(i.PaidAt), "voided_at": timeOrNull(i.VoidedAt),
			"marked_uncollectible_at": timeOrNull(i.WrittenOff),
		},
		"parent": nil, "metadata": object{}, "automatic_tax": invoiceTax(), "default_tax_rates": []any{}, "discounts": []any{},
		"issuer": object{"type": "self"}, "payment_settings": object{
			"default_mandate": nil, "payment_method_options": nil, "payment_method_types": nil,
		},
		"default_payment_method": nil, "default_source": nil, "description": nil, "due_date": nil, "effective_at": timeOrNull(i.FinalizedAt),
		"footer": nil, "from_invoice": nil, "hosted_invoice_url": nil, "invoice_pdf": nil, "last_finalization_error": nil,
		"latest_revision": nil, "on_behalf_of": nil, "receipt_number": nil, "statement_descriptor": nil, "test_clock": nil,
		"account_country": "US", "account_name": nil, "custom_fields": nil, "customer_tax_exempt": "none", "customer_tax_ids": []any{},
		"webhooks_delivered_at": nil,
	})
	if c := m.Customers.get(i.Customer); c != nil {
		o["customer_email"], o["customer_name"] = orNull(c.Email), orNull(c.Name)
	}
	if i.Subscription != "" {
		o["parent"] = object{
			"type": "subscription_details", "quote_details": nil,
			"subscription_details": object{"subscription": i.Subscription, "metadata": metadataOf(i.Metadata)},
		}
	}
	if i.FinalizedAt != 0 {
		o["hosted_invoice_url"] = m.fake.options.BaseURL + "/invoice/" + m.invoiceToken(i)
	}
	return o
}

// invoiceToken is the part of an invoice's address that nobody guesses.
func (m *mode) invoiceToken(i *invoice) string {
	return i.ID + "." + m.digest("page "+i.ID, 0, longID)
}

func (m *mode) invoiceMoney(i *invoice) object {
	remaining := i.due() - i.Paid
	if i.Status == "void" {
		remaining = 0
	}
	o := object{
		"subtotal": i.total(), "subtotal_excluding_tax": i.total(), "total": i.total(), "total_excluding_tax": i.total(),
		"amount_due": i.due(), "amount_paid": i.Paid, "amount_remaining": remaining, "amount_overpaid": 0, "amount_shipping": 0,
		"amount_paid_off_stripe": 0, "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0,
		"starting_balance": i.StartingBalance, "ending_balance": nil, "total_discount_amounts": []any{}, "total_taxes": []any{},
		"total_pretax_credit_amounts": []any{},
	}
	if i.FinalizedAt != 0 {
		o["ending_balance"] = i.EndingBalance
	}
	return o
}

// noTax is of objects that could compute taxes: the fake has none.
func noTax() object {
	return object{"enabled": false, "liability": nil, "provider": nil, "status": nil}
}

func invoiceTax() object {
	o := noTax()
	o["disabled_reason"] = nil
	return o
}

// lineOf is a line as a row of a list.
type lineOf struct {
	line
	i *invoice
}

func (l *lineOf) key() string { return l.ID }

func linesOf(i *invoice) []*lineOf {
	rows := make([]*lineOf, len(i.Lines))
	for k, l := range slices.Clone(i.Lines) {
		rows[k] = &lineOf{l, i}
	}
	return rows
}

func (m *mode) lineObject(i *invoice, l *line) object {
	p := m.Prices.get(l.Price)
	unit := strconv.FormatInt(p.Amount, 10)
	return object{
		"id": l.ID, "object": "line_item", "livemode": m.Livemode, "amount": l.Amount, "subtotal": l.Amount, "currency": i.Currency,
		"description": l.Description, "quantity": l.Quantity, "invoice": orNull(i.ID), "discountable": !l.Proration, "discounts": []any{},
		"discount_amounts": []any{}, "metadata": metadataOf(i.Metadata), "period": object{"start": l.Start, "end": l.End},
		"pretax_credit_amounts": []any{}, "taxes": []any{}, "subscription": orNull(i.Subscription),
		"pricing": object{
			"type": "price_details", "unit_amount_decimal": unit, "price_details": object{"price": p.ID, "product": p.Product},
		},
		"parent": object{
			"type": "subscription_item_details", "invoice_item_details": nil,
			"subscription_item_details": object{
				"invoice_item": nil, "proration": l.Proration, "proration_details": object{"credited_items": nil},
				"subscription": orNull(i.Subscription), "subscription_item": l.Item,
			},
		},
	}
}
