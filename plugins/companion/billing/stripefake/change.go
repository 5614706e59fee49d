package stripefake

import (
	"fmt"
	"time"
)

// Behaviours of a change, as the API names them.
const (
	prorateLater = "create_prorations" // on the next invoice
	prorateNow   = "always_invoice"
	prorateNever = "none"

	payLater   = "allow_incomplete"
	payOrFail  = "error_if_incomplete"
	payOrWait  = "pending_if_incomplete"
	payByPage  = "default_incomplete"
	waitForPay = 23 * hour // until an unpaid beginning or change is given up
)

// alteration is a change of what a subscription is made of.
type alteration struct {
	items     []orderItem
	proration string
	behavior  string
	at        int64 // from when it is prorated
	restart   bool  // a new billing period begins
}

// effect is what an alteration would do.
type effect struct {
	items []subItem
	lines []line
	now   bool  // the lines are invoiced at once
	start int64 // of the billing period, from now on
	end   int64
}

// effectOf works out an alteration without making it.
func (m *mode) effectOf(s *subscription, a alteration) effect {
	e := effect{items: m.itemsFrom(s, a.items), start: s.PeriodStart, end: s.PeriodEnd}
	before, after := m.Prices.get(s.Items[0].Price), m.Prices.get(a.items[0].Price)
	restart := a.restart || before.Interval != after.Interval || before.IntervalCount != after.IntervalCount
	if s.Status == "trialing" {
		return e // nothing was paid for, and the trial ends when it ends
	}
	if restart {
		e.start, e.end, e.now = m.now, after.endOf(m.now), true
		if a.proration != prorateNever {
			e.lines = m.unused(s, s.Items, a.at, s.PeriodEnd)
		}
		e.lines = append(e.lines, m.periodLines(s, e.items, e.start, e.end)...)
		return e
	}
	e.now = a.proration == prorateNow
	if a.proration == prorateNever {
		return e
	}
	was := map[string]subItem{}
	for _, item := range s.Items {
		was[item.ID] = item
	}
	var ended, begun []subItem
	for _, item := range e.items {
		old, ok := was[item.ID]
		delete(was, item.ID)
		if ok && old.Price == item.Price && old.Quantity == item.Quantity {
			continue
		}
		if ok {
			ended = append(ended, old)
		}
		begun = append(begun, item)
	}
	for _, item := range s.Items {
		if _, gone := was[item.ID]; gone {
			ended = append(ended, item)
		}
	}
	e.lines = append(m.unused(s, ended, a.at, s.PeriodEnd), m.remaining(s, begun, a.at, s.PeriodEnd)...)
	return e
}

// unused gives back the time of items that is left of the period.
func (m *mode) unused(s *subscription, items []subItem, at, end int64) []line {
	return m.prorated(s, items, at, end, -1, "Unused time on")
}

// remaining asks for that time.
func (m *mode) remaining(s *subscription, items []subItem, at, end int64) []line {
	return m.prorated(s, items, at, end, 1, "Remaining time on")
}

func (m *mode) prorated(s *subscription, items []subItem, at, end, sign int64, words string) []line {
	length, left := s.PeriodEnd-s.PeriodStart, end-max(at, s.PeriodStart)
	if left <= 0 || length <= 0 {
		return nil
	}
	var lines []line
	for _, item := range items {
		p := m.Prices.get(item.Price)
		full := p.Amount * item.Quantity
		// Rounded half up. A price times the seconds of a year stays far below 2^63.
		amount := (full/length)*left + ((full%length)*left*2+length)/(2*length)
		lines = append(lines, line{
			Description: fmt.Sprintf("%s %d × %s after %s", words, item.Quantity, m.Products.get(p.Product).Name,
				time.Unix(at, 0).UTC().Format("02 Jan 2006")),
			Price: p.ID, Item: item.ID, Quantity: item.Quantity, Amount: sign * amount, Start: at, End: end, Proration: true,
		})
	}
	return lines
}

// alter makes an alteration, and collects what it costs where that is due at
// once. A payment that fails leaves the subscription past due, or is an error, or
// makes the change wait, as the behaviour says.
func (m *mode) alter(s *subscription, a alteration) *apiError {
	e := m.effectOf(s, a)
	was := m.subscriptionObject(s)
	if e.now && sum(e.lines) > 0 && (a.behavior == payOrFail || a.behavior == payOrWait) {
		if d := m.judge(s.Customer, m.methodFor(s.Customer, s.DefaultMethod)); d != nil {
			if a.behavior == payOrWait {
				m.postpone(s, a, e, was)
				return nil
			}
			if d.Code == "" {
				return noMethod(d)
			}
			return d.refusal()
		}
	}
	s.Items = e.items
	if e.start != s.PeriodStart || e.end != s.PeriodEnd {
		s.Anchor, s.PeriodStart, s.PeriodEnd = e.start, e.start, e.end
		if s.CancelAtPeriodEnd {
			s.CancelAt = s.PeriodEnd
		}
	}
	if !e.now {
		s.Pending = append(s.Pending, e.lines...)
		m.told("customer.subscription.updated", was, m.subscriptionObject(s))
		return nil
	}
	lines := append(s.Pending, e.lines...) //nolint:gocritic // what was pending is on this invoice now
	s.Pending = nil
	if len(lines) == 0 {
		m.told("customer.subscription.updated", was, m.subscriptionObject(s))
		return nil
	}
	i := m.draft(s, "subscription_update", lines)
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	m.finalize(i)
	if a.behavior != payByPage || i.due() == 0 {
		m.collect(i, m.methodFor(s.Customer, s.DefaultMethod))
	}
	return nil
}

// postpone keeps a change back until its invoice is paid, which it is not now.
func (m *mode) postpone(s *subscription, a alteration, e effect, was object) {
	m.dropUpdate(s)
	i := m.draft(s, "subscription_update", e.lines)
	s.Update = &pendingUpdate{Items: a.items, Invoice: i.ID, ExpiresAt: m.now + waitForPay}
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	m.finalize(i)
	m.collect(i, m.methodFor(s.Customer, s.DefaultMethod))
}

// dropUpdate gives up a change that was not paid for.
func (m *mode) dropUpdate(s *subscription) {
	if s.Update == nil {
		return
	}
	i := m.Invoices.get(s.Update.Invoice)
	s.Update = nil
	if i.Status == "open" {
		m.void(i)
	}
	m.emit("customer.subscription.pending_update_expired", m.subscriptionObject(s))
}

func sum(lines []line) int64 { return (&invoice{Lines: lines}).total() }
