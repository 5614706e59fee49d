package stripefake

func paymentEndpoints() []endpoint {
	const created = " created created.gt created.gte created.lt created.lte"
	return []endpoint{
		{"GET", "/v1/payment_intents/{id}", "", func(c *call) (object, *apiError) {
			r := c.Intents.get(c.id)
			if r == nil {
				return nil, noSuch("payment_intent", c.id, "id")
			}
			return c.intentObject(r), nil
		}},
		{"GET", "/v1/payment_intents", listParams + " customer" + created, func(c *call) (object, *apiError) {
			owner, span := c.str("customer"), c.span("created")
			return listed(c, "/v1/payment_intents", &c.Intents, func(r *intent) bool {
				return (owner == "" || r.Customer == owner) && (span == nil || span(r.Created))
			}, c.intentObject)
		}},
		{"GET", "/v1/charges/{id}", "", func(c *call) (object, *apiError) {
			r := c.Charges.get(c.id)
			if r == nil {
				return nil, noSuch("charge", c.id, "id")
			}
			return c.chargeObject(r), nil
		}},
		{"GET", "/v1/charges", listParams + " customer payment_intent" + created, func(c *call) (object, *apiError) {
			owner, p, span := c.str("customer"), c.str("payment_intent"), c.span("created")
			return listed(c, "/v1/charges", &c.Charges, func(r *charge) bool {
				return (owner == "" || r.Customer == owner) && (p == "" || r.Intent == p) && (span == nil || span(r.Created))
			}, c.chargeObject)
		}},
		{"POST", "/v1/refunds", "charge payment_intent amount reason metadata.*", createRefund},
		{"GET", "/v1/refunds/{id}", "", func(c *call) (object, *apiError) {
			r := c.Refunds.get(c.id)
			if r == nil {
				return nil, noSuch("refund", c.id, "id")
			}
			return c.refundObject(r), nil
		}},
		{"GET", "/v1/refunds", listParams + " charge payment_intent" + created, func(c *call) (object, *apiError) {
			of, p, span := c.str("charge"), c.str("payment_intent"), c.span("created")
			return listed(c, "/v1/refunds", &c.Refunds, func(r *refund) bool {
				return (of == "" || r.Charge == of) && (p == "" || r.Intent == p) && (span == nil || span(r.Created))
			}, c.refundObject)
		}},
		{"GET", "/v1/disputes/{id}", "", func(c *call) (object, *apiError) {
			r := c.Disputes.get(c.id)
			if r == nil {
				return nil, noSuch("dispute", c.id, "id")
			}
			return c.disputeObject(r), nil
		}},
		{"POST", "/v1/disputes/{id}/close", "", func(c *call) (object, *apiError) {
			r := c.Disputes.get(c.id)
			if r == nil {
				return nil, noSuch("dispute", c.id, "id")
			}
			if !r.open() {
				return nil, invalid("", "This dispute is already closed")
			}
			c.closeDispute(r, false)
			return c.disputeObject(r), nil
		}},
		{"GET", "/v1/disputes", listParams + " charge payment_intent" + created, func(c *call) (object, *apiError) {
			of, p, span := c.str("charge"), c.str("payment_intent"), c.span("created")
			return listed(c, "/v1/disputes", &c.Disputes, func(r *dispute) bool {
				return (of == "" || r.Charge == of) && (p == "" || r.Intent == p) && (span == nil || span(r.Created))
			}, c.disputeObject)
		}},
	}
}

func createRefund(c *call) (object, *apiError) {
	of, p := c.str("charge"), c.str("payment_intent")
	r := &refund{
		Amount: c.integer("amount", 0), Reason: c.word("reason", "", "duplicate", "fraudulent", "requested_by_customer"),
		Metadata: c.metadata("metadata", nil), Created: c.now,
	}
	if of == "" && p == "" {
		c.fail(invalid("", "One of the following params should be provided for this request: payment_intent or charge."))
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if of == "" {
		i := c.Intents.get(p)
		if i == nil {
			return nil, noSuch("payment_intent", p, "payment_intent")
		}
		of = i.Charge
	}
	paid := c.Charges.get(of)
	if paid == nil {
		return nil, noSuch("charge", of, "charge")
	}
	left := paid.Amount - paid.Refunded
	if r.Amount == 0 {
		r.Amount = left
	}
	switch {
	case paid.Failure != nil:
		return nil, invalid("charge", "Charge %s has not been successful and cannot be refunded.", of)
	case left == 0:
		e := invalid("", "Charge %s has already been refunded.", of)
		e.Code = "charge_already_refunded"
		return nil, e
	case paid.Dispute != "":
		e := invalid("", "Charge %s has been charged back; cannot issue a refund.", of)
		e.Code = "charge_disputed"
		return nil, e
	case r.Amount < 0 || r.Amount > left:
		return nil, invalid("amount", "Refund amount (%d) is greater than unrefunded amount on charge (%d)", r.Amount, left)
	}
	r.ID, r.Charge, r.Intent, r.Currency = c.mode.id("re_3", longID-1), paid.ID, paid.Intent, paid.Currency
	was := c.chargeObject(paid)
	paid.Refunded += r.Amount
	c.Refunds.add(r)
	c.emit("refund.created", c.refundObject(r))
	c.told("charge.refunded", was, c.chargeObject(paid))
	return c.refundObject(r), nil
}

// openDispute contests a payment, as a cardholder's bank does.
func (m *mode) openDispute(c *charge, reason string) *dispute {
	r := m.Disputes.add(&dispute{
		ID: m.id("dp_1", longID-1), Charge: c.ID, Intent: c.Intent, Currency: c.Currency, Amount: c.Amount, Reason: reason,
		Status: "needs_response", Created: m.now, DueBy: m.now + 9*day, Metadata: map[string]string{},
	})
	c.Dispute = r.ID
	m.emit("charge.dispute.created", m.disputeObject(r))
	m.emit("charge.dispute.funds_withdrawn", m.disputeObject(r))
	return r
}

func (m *mode) closeDispute(r *dispute, won bool) {
	r.Status = "lost"
	if won {
		r.Status = "won"
		m.emit("charge.dispute.funds_reinstated", m.disputeObject(r))
	}
	m.emit("charge.dispute.closed", m.disputeObject(r))
}

func (r *dispute) open() bool { return r.Status == "needs_response" || r.Status == "under_review" }

func (m *mode) intentObject(r *intent) object {
	received := int64(0)
	if r.Status == "succeeded" {
		received = r.Amount
	}
	o := object{
		"id": r.ID, "object": "payment_intent", "livemode": m.Livemode, "created": r.Created, "status": r.Status, "amount": r.Amount,
		"amount_received": received, "amount_capturable": 0, "currency": r.Currency, "customer": orNull(r.Customer),
		"payment_method": orNull(r.Method), "latest_charge": orNull(r.Charge), "canceled_at": timeOrNull(r.CanceledAt),
		"capture_method": "automatic", "confirmation_method": "automatic", "client_secret": r.ID + "_secret_" + r.Secret,
		"metadata": object{}, "payment_method_types": []any{"card"}, "setup_future_usage": "off_session", "last_payment_error": nil,
		"next_action": nil, "cancellation_reason": nil,
	}
	if r.CanceledAt != 0 {
		o["cancellation_reason"] = "void_invoice"
	}
	if r.Error != nil {
		last := object{"type": typeCard, "message": r.Error.Message}
		if r.Error.Code != "" {
			last["code"] = r.Error.Code
		}
		if r.Error.DeclineCode != "" {
			last["decline_code"] = r.Error.DeclineCode
		}
		if r.Error.Charge != "" {
			last["charge"] = r.Error.Charge
		}
		if p := m.Methods.get(r.Error.Method); p != nil {
			last["payment_method"] = m.methodObject(p)
		}
		o["last_payment_error"] = last
	}
	return o
}

func (m *mode) chargeObject(r *charge) object {
	o := object{
		"id": r.ID, "object": "charge", "livemode": m.Livemode, "created": r.Created, "amount": r.Amount, "amount_captured": r.Amount,
		"amount_refunded": r.Refunded, "currency": r.Currency, "customer": orNull(r.Customer), "payment_intent": orNull(r.Intent),
		"payment_method": orNull(r.Method), "captured": true, "paid": true, "refunded": r.Refunded == r.Amount, "status": "succeeded",
		"disputed": r.Dispute != "", "failure_code": nil, "failure_message": nil, "metadata": object{}, "description": nil,
		"billing_details": object{"address": nil, "email": nil, "name": nil, "phone": nil, "tax_id": nil},
		"outcome": object{
			"network_status": "approved_by_network", "reason": nil, "seller_message": "Payment complete.", "type": "authorized",
			"advice_code": nil, "network_advice_code": nil, "network_decline_code": nil,
		},
		"balance_transaction": nil, "receipt_url": nil, "fraud_details": object{},
	}
	if d := r.Failure; d != nil {
		o["paid"], o["captured"], o["status"], o["amount_captured"] = false, false, "failed", 0
		o["failure_code"], o["failure_message"], o["refunded"] = orNull(d.Code), d.Message, false
		o["outcome"] = object{
			"network_status": "declined_by_network", "reason": orNull(d.DeclineCode), "seller_message": "The bank did not return any further details with this decline.",
			"type": "issuer_declined", "advice_code": nil, "network_advice_code": nil, "network_decline_code": nil,
		}
	}
	return o
}

func (m *mode) chargeRefunds(id string) object {
	var data []any
	for _, r := range m.Refunds.newest(func(r *refund) bool { return r.Charge == id }) {
		data = append(data, m.refundObject(r))
	}
	return listOf("/v1/charges/"+id+"/refunds", data, false)
}

func (m *mode) refundObject(r *refund) object {
	return object{
		"id": r.ID, "object": "refund", "created": r.Created, "amount": r.Amount, "currency": r.Currency, "charge": r.Charge,
		"payment_intent": orNull(r.Intent), "reason": orNull(r.Reason), "status": "succeeded", "metadata": metadataOf(r.Metadata),
		"balance_transaction": nil, "receipt_number": nil, "source_transfer_reversal": nil, "transfer_reversal": nil,
	}
}

func (m *mode) disputeObject(r *dispute) object {
	return object{
		"id": r.ID, "object": "dispute", "livemode": m.Livemode, "created": r.Created, "amount": r.Amount, "currency": r.Currency,
		"charge": r.Charge, "payment_intent": orNull(r.Intent), "reason": r.Reason, "status": r.Status, "metadata": metadataOf(r.Metadata),
		"balance_transactions": []any{}, "enhanced_eligibility_types": []any{}, "evidence": m.noEvidence(), "is_charge_refundable": false,
		"evidence_details": object{
			"due_by": r.DueBy, "has_evidence": false, "past_due": m.now > r.DueBy, "submission_count": 0, "enhanced_eligibility": object{},
		},
	}
}

// noEvidence is the form that a seller fills in, empty.
func (m *mode) noEvidence() object {
	o := object{"enhanced_evidence": object{}}
	for _, name := range []string{
		"access_activity_log", "billing_address", "cancellation_policy", "cancellation_policy_disclosure", "cancellation_rebuttal",
		"customer_communication", "customer_email_address", "customer_name", "customer_purchase_ip", "customer_signature",
		"duplicate_charge_documentation", "duplicate_charge_explanation", "duplicate_charge_id", "product_description", "receipt",
		"refund_policy", "refund_policy_disclosure", "refund_refusal_explanation", "service_date", "service_documentation",
		"shipping_address", "shipping_carrier", "shipping_date", "shipping_documentation", "shipping_tracking_number",
		"uncategorized_file", "uncategorized_text",
	} {
		o[name] = nil
	}
	return o
}
