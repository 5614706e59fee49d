package stripefake

func (m *mode) subscriptionObject(s *subscription) object {
	items := make([]any, len(s.Items))
	for k := range s.Items {
		items[k] = m.itemObject(s, &s.Items[k])
	}
	o := object{
		"id": s.ID, "object": "subscription", "livemode": m.Livemode, "created": s.Created, "status": s.Status, "customer": s.Customer,
		"currency": s.Currency, "description": orNull(s.Description), "metadata": metadataOf(s.Metadata),
		"items":                listOf("/v1/subscription_items?subscription="+s.ID, items, false),
		"start_date":           s.Start,
		"billing_cycle_anchor": s.Anchor,
		"trial_start":          timeOrNull(s.TrialStart),
		"trial_end":            timeOrNull(s.TrialEnd),
		"cancel_at":            timeOrNull(s.CancelAt),
		"cancel_at_period_end": s.CancelAtPeriodEnd,
		"canceled_at":          timeOrNull(s.CanceledAt),
		"ended_at":             timeOrNull(s.EndedAt),
		"cancellation_details": object{
			"comment": orNull(s.Comment), "feedback": orNull(s.Feedback), "reason": orNull(s.Reason),
		},
		"default_payment_method": orNull(s.DefaultMethod),
		"latest_invoice":         orNull(s.LatestInvoice),
		"schedule":               orNull(s.Schedule),
		"trial_settings":         object{"end_behavior": object{"missing_payment_method": s.MissingMethod}},
		"collection_method":      "charge_automatically",
		"billing_mode":           billingMode(),
		"billing_schedules":      []any{},
		"automatic_tax":          object{"enabled": false, "disabled_reason": nil, "liability": nil},
		"invoice_settings":       object{"account_tax_ids": nil, "issuer": object{"type": "self"}},
		"payment_settings": object{
			"payment_method_options": nil, "payment_method_types": nil, "save_default_payment_method": "on_subscription",
		},
		"pending_update": nil, "pending_setup_intent": nil, "pause_collection": nil, "discounts": []any{}, "default_tax_rates": []any{},
		"application": nil, "application_fee_percent": nil, "billing_cycle_anchor_config": nil, "billing_thresholds": nil,
		"days_until_due": nil, "default_source": nil, "next_pending_invoice_item_invoice": nil, "on_behalf_of": nil,
		"pending_invoice_item_interval": nil, "test_clock": nil, "transfer_data": nil,
	}
	if u := s.Update; u != nil {
		var after []any
		for _, x := range m.peekItems(s, u.Items) {
			after = append(after, m.itemObject(s, &x))
		}
		o["pending_update"] = object{
			"expires_at": u.ExpiresAt, "subscription_items": after, "billing_cycle_anchor": nil, "trial_end": nil, "trial_from_plan": nil,
		}
	}
	return o
}

// peekItems is itemsFrom without new ids: what is not there yet has none.
func (m *mode) peekItems(s *subscription, items []orderItem) []subItem {
	before := m.Sequence
	defer func() { m.Sequence = before }()
	return m.itemsFrom(s, items)
}

func billingMode() object {
	return object{"type": "flexible", "flexible": object{"proration_discounts": "included"}}
}

// itemObject has the billing period, which is the item's since API version
// 2025-03-31.basil.
func (m *mode) itemObject(s *subscription, x *subItem) object {
	return object{
		"id": x.ID, "object": "subscription_item", "created": x.Created, "subscription": s.ID, "quantity": x.Quantity,
		"price": m.priceObject(m.Prices.get(x.Price)), "metadata": metadataOf(x.Metadata), "current_period_start": s.PeriodStart,
		"current_period_end": s.PeriodEnd, "discounts": []any{}, "tax_rates": []any{}, "billing_thresholds": nil,
	}
}
