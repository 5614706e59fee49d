package stripefake

import "math"

// trialNotice is how long before its end a trial is announced to end.
const trialNotice = 3 * day

// task is something that falls due.
type task struct {
	at   int64
	rank int // of what falls due at once, the lower first
	do   func()
}

// settle does all that falls due until a time, each at its own time.
func (m *mode) settle(until int64) {
	m.by = nil
	for {
		next := m.next()
		if next == nil || next.at > until {
			m.now = until
			return
		}
		m.now = max(m.now, next.at)
		next.do()
	}
}

// next is what falls due first, or nil.
func (m *mode) next() *task {
	best := task{at: math.MaxInt64}
	consider := func(at int64, rank int, do func()) {
		if at != 0 && (at < best.at || at == best.at && rank < best.rank) {
			best = task{at, rank, do}
		}
	}
	for _, s := range m.Sessions.rows {
		if s.Status == "open" {
			consider(s.ExpiresAt, 0, func() { m.expire(s) })
		}
	}
	for _, s := range m.Subscriptions.rows {
		if !s.over() {
			m.nextOf(s, consider)
		}
	}
	for _, i := range m.Invoices.rows {
		switch i.Status {
		case "draft":
			consider(i.FinalizeAt, 6, func() { m.finalizeAndCollect(i) })
		case "open":
			consider(i.NextAttempt, 7, func() { m.retry(i) })
		}
	}
	if best.do == nil {
		return nil
	}
	return &best
}

func (m *mode) nextOf(s *subscription, consider func(int64, int, func())) {
	if s.Status == "incomplete" {
		consider(s.Created+waitForPay, 1, func() { m.neverPaid(s) })
		return
	}
	if s.Status == "trialing" && !s.TrialEndTold {
		consider(s.TrialEnd-trialNotice, 1, func() { m.tellTrialEnd(s) })
	}
	if s.Update != nil {
		consider(s.Update.ExpiresAt, 2, func() {
			was := m.subscriptionObject(s)
			m.dropUpdate(s)
			m.told("customer.subscription.updated", was, m.subscriptionObject(s))
		})
	}
	consider(s.CancelAt, 3, func() { m.cancel(s, s.Reason) })
	if r := m.Schedules.get(s.Schedule); r != nil {
		consider(r.Phases[r.Current].End, 4, func() { m.nextPhase(r, s) })
	}
	if s.Status != "paused" {
		consider(s.PeriodEnd, 5, func() { m.renew(s) })
	}
}

// neverPaid ends a subscription whose first invoice was not paid in time.
func (m *mode) neverPaid(s *subscription) {
	was := m.subscriptionObject(s)
	s.Status, s.EndedAt = "incomplete_expired", m.now
	if i := m.Invoices.get(s.LatestInvoice); i != nil && i.Status == "open" {
		m.void(i)
	}
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
}

// renew begins the next billing period, after a trial or another.
func (m *mode) renew(s *subscription) {
	if s.Status == "trialing" {
		if m.methodFor(s.Customer, s.DefaultMethod) == nil && m.endTrialWithoutMethod(s) {
			return
		}
	}
	was := m.subscriptionObject(s)
	if s.Status == "trialing" {
		s.Status = "active"
	}
	p := m.Prices.get(s.Items[0].Price)
	oldStart := s.PeriodStart
	s.PeriodStart = s.PeriodEnd
	s.PeriodEnd = nextBoundary(s.Anchor, s.PeriodStart, p.Interval, p.IntervalCount)
	lines := append(s.Pending, m.periodLines(s, s.Items, s.PeriodStart, s.PeriodEnd)...) //nolint:gocritic // pending no more
	s.Pending = nil
	i := m.draft(s, "subscription_cycle", lines)
	i.PeriodStart, i.PeriodEnd = oldStart, s.PeriodStart
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	wait := int64(m.fake.options.FinalizeAfter.Seconds())
	switch {
	case s.Status == Unpaid: // it stays a draft, until somebody wants it
	case wait < 0:
		m.finalizeAndCollect(i)
	default:
		i.FinalizeAt = m.now + wait
	}
}

// endTrialWithoutMethod does what the trial's settings say where there is
// nothing to pay with; false if the subscription just goes on.
func (m *mode) endTrialWithoutMethod(s *subscription) bool {
	switch s.MissingMethod {
	case "cancel":
		m.cancel(s, "cancellation_requested")
	case "pause":
		was := m.subscriptionObject(s)
		s.Status = "paused"
		m.told("customer.subscription.updated", was, m.subscriptionObject(s))
		m.emit("customer.subscription.paused", m.subscriptionObject(s))
	default:
		return false
	}
	return true
}

func (m *mode) finalizeAndCollect(i *invoice) {
	m.finalize(i)
	m.retry(i)
}

// retry collects an open invoice with what the subscription is paid by.
func (m *mode) retry(i *invoice) {
	own := ""
	if s := m.Subscriptions.get(i.Subscription); s != nil {
		own = s.DefaultMethod
	}
	m.collect(i, m.methodFor(i.Customer, own))
}

// cancel ends a subscription now. What it owes stays owed, but is not collected
// by itself any more.
func (m *mode) cancel(s *subscription, reason string) {
	first := s.Status == "incomplete"
	s.Status, s.EndedAt, s.Reason, s.Pending = "canceled", m.now, reason, nil
	if s.CanceledAt == 0 {
		s.CanceledAt = m.now
	}
	m.dropUpdate(s)
	if r := m.Schedules.get(s.Schedule); r != nil {
		s.Schedule = ""
		r.Status, r.CanceledAt = "canceled", m.now
		m.emit("subscription_schedule.canceled", m.scheduleObject(r))
	}
	for _, i := range m.Invoices.rows {
		if i.Subscription != s.ID {
			continue
		}
		i.NextAttempt, i.FinalizeAt = 0, 0
		if first && i.Status == "open" {
			m.void(i)
		}
	}
	m.emit("customer.subscription.deleted", m.subscriptionObject(s))
}
