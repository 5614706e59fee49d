package stripefake

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// portalTime is how long a portal's address works, in seconds of the delivery clock.
const portalTime = hour

// maxDays is how far a page moves the clock at once.
const maxDays = 366

// portalPage is what portal.html shows.
type portalPage struct {
	Title, Who, Problem, Done, Card, Now, NowISO, Back string
	Subscriptions                                      []shownSubscription
	Invoices                                           []shownInvoice
	Cards                                              []shownCard
}

type shownSubscription struct {
	ID, Name, Status, StatusText, Price, Until, Pending string
	Live, Ends, Scheduled, CanEnd                       bool
	Choices                                             []choice
}

type choice struct{ ID, Field, Text string }

type shownInvoice struct {
	ID, Date, Number, Amount, Status, Page string
	Payable                                bool
}

// errNoPortal is for an address that never worked, or does no more.
var errNoPortal = errors.New("no such portal session")

// inPortal runs do on the books of the portal's customer.
func (s *site) inPortal(token string, do func(*mode, *portal) error) error {
	err := s.either(func(m *mode) (bool, error) {
		for _, p := range m.Portals.rows {
			if p.Token != token || s.wallClock().Unix() >= p.Opened+portalTime {
				continue
			}
			if _, bad := m.customer(p.Customer, ""); bad == nil {
				return true, do(m, p)
			}
		}
		return false, nil
	})
	if errors.Is(err, errNotFound) {
		return errNoPortal
	}
	return err
}

// said is what was done, in words; empty for what no page does.
func said(act string) string {
	switch act {
	case "cancel_now":
		return "The subscription has ended."
	case "cancel_end":
		return "The subscription will end with its period."
	case "resume":
		return "The subscription goes on."
	case "stay":
		return "The plan stays as it is."
	case "change":
		return "The plan was changed."
	case "later":
		return "The plan will change when the period ends."
	case "card":
		return "The new card will be used from now on."
	case "collect":
		return "The invoice was paid."
	case "clock":
		return "The clock was moved."
	default:
		return ""
	}
}

func (s *site) showPortal(w http.ResponseWriter, r *http.Request) {
	s.portalPage(w, r.PathValue("token"), http.StatusOK, "", said(r.URL.Query().Get("done")))
}

func (s *site) portalPage(w http.ResponseWriter, token string, status int, problem, done string) {
	p := portalPage{Title: "Your subscription", Problem: problem, Done: done, Cards: shownCards()}
	err := s.inPortal(token, func(m *mode, of *portal) error {
		p.fill(m, of)
		return nil
	})
	switch {
	case errors.Is(err, errNoPortal):
		s.note(w, http.StatusNotFound, "Not found", "This link works no more. Open the portal again from the application.")
	case err != nil:
		s.fail(w, err)
	default:
		s.show(w, status, "portal.html", p)
	}
}

func (p *portalPage) fill(m *mode, of *portal) {
	owner := m.Customers.get(of.Customer)
	p.Who, p.Back = owner.Email, of.ReturnURL
	now := time.Unix(m.now, 0).UTC()
	p.Now, p.NowISO = now.Format("2 January 2006, 15:04"), now.Format(time.RFC3339)
	for _, s := range m.Subscriptions.newest(func(s *subscription) bool { return s.Customer == owner.ID && s.Status != "incomplete_expired" }) {
		p.Subscriptions = append(p.Subscriptions, m.shown(s))
	}
	own := ""
	for _, s := range m.Subscriptions.rows {
		if s.Customer == owner.ID && !s.over() {
			own = s.DefaultMethod
		}
	}
	if r := m.methodFor(owner.ID, own); r != nil {
		p.Card = strings.ToUpper(r.Brand[:1]) + r.Brand[1:] + " that ends in " + r.Last4
	}
	for _, i := range m.Invoices.newest(func(i *invoice) bool { return i.Customer == owner.ID && i.FinalizedAt != 0 }) {
		p.Invoices = append(p.Invoices, shownInvoice{
			ID: i.ID, Date: date(i.Created), Number: i.Number, Amount: money(i.due(), i.Currency), Status: i.Status, Payable: i.Status == "open",
			Page: m.invoiceToken(i),
		})
	}
}

// shown is a subscription as the portal shows it.
func (m *mode) shown(s *subscription) shownSubscription {
	first := m.Prices.get(s.Items[0].Price)
	out := shownSubscription{
		ID: s.ID, Name: m.Products.get(first.Product).Name, Status: s.Status, StatusText: strings.ReplaceAll(s.Status, "_", " "),
		Price: money(first.Amount*s.Items[0].Quantity, first.Currency) + " each " + first.each(), Live: !s.over(),
		Ends: s.CancelAt != 0, Scheduled: s.Schedule != "", CanEnd: s.Status == "active" || s.Status == "trialing" || s.Status == "past_due",
	}
	switch {
	case s.over():
		out.Until = "ended on " + date(s.EndedAt)
	case s.CancelAt != 0:
		out.Until = "ends on " + date(s.CancelAt)
	case s.Status == "trialing":
		out.Until = "free until " + date(s.TrialEnd)
	default:
		out.Until = "renews on " + date(s.PeriodEnd)
	}
	if r := m.Schedules.get(s.Schedule); r != nil && r.Current+1 < len(r.Phases) {
		next := r.Phases[r.Current+1]
		p := m.Prices.get(next.Items[0].Price)
		out.Pending = "Changes to " + m.Products.get(p.Product).Name + ", " + money(p.Amount, p.Currency) + " each " + p.each() + ", on " + date(next.Start) + "."
	}
	if !out.CanEnd || out.Ends || out.Scheduled || s.Status == "past_due" {
		return out
	}
	for _, p := range m.Prices.rows {
		if p.Active && p.Interval != "" && p.ID != first.ID && p.Currency == first.Currency && p.LookupKey != "" {
			text := m.Products.get(p.Product).Name + ", " + money(p.Amount, p.Currency) + " each " + p.each()
			if m.lessThan(p, first) {
				text += ", when the period ends"
			}
			out.Choices = append(out.Choices, choice{p.ID, "to-" + p.ID, text})
		}
	}
	return out
}

// lessThan reports whether a price buys less: another product for less money a
// month, or the same for a shorter time.
func (m *mode) lessThan(p, than *price) bool {
	if p.Product == than.Product {
		return p.monthly() > than.monthly()
	}
	return p.monthly() < than.monthly()
}

// monthly is about what a price costs in a month.
func (p *price) monthly() int64 {
	days := map[string]int64{"day": 1, "week": 7, "month": 30, "year": 365}[p.Interval] * max(1, p.IntervalCount)
	return p.Amount * 30 / days
}

func (s *site) actInPortal(w http.ResponseWriter, r *http.Request) {
	if !s.form(w, r) {
		return
	}
	token, done := r.PathValue("token"), r.PostForm.Get("do")
	var bad *apiError
	err := s.inPortal(token, func(m *mode, of *portal) error {
		if done == "clock" {
			return nil // moved below: that takes the lock itself
		}
		done, bad = m.portalAct(of.Customer, done, r.PostForm.Get)
		return nil
	})
	if err == nil && done == "clock" {
		days, e := strconv.Atoi(r.PostForm.Get("days"))
		if e != nil || days < 1 || days > maxDays {
			bad = invalid("days", "The clock moves by 1 to %d days.", maxDays)
		} else {
			err = s.Advance(time.Duration(days) * 24 * time.Hour)
		}
	}
	switch {
	case errors.Is(err, errNoPortal):
		s.note(w, http.StatusNotFound, "Not found", "This link works no more. Open the portal again from the application.")
	case err != nil:
		s.fail(w, err)
	case bad != nil:
		s.portalPage(w, token, bad.Status, bad.Message, "")
	default:
		redirect(w, token+"?done="+done)
	}
}

// portalAct does what a customer asks for in the portal, and says what was done.
func (m *mode) portalAct(owner, act string, field func(string) string) (string, *apiError) {
	switch act {
	case "card":
		return act, m.newCard(owner, field("card"))
	case "collect":
		return act, m.collectFor(owner, field("invoice"))
	}
	s := m.Subscriptions.get(field("subscription"))
	if s == nil || s.Customer != owner || s.over() {
		return "", invalid("subscription", "There is no such subscription any more.")
	}
	was := m.subscriptionObject(s)
	switch act {
	case "cancel_now":
		m.cancel(s, "cancellation_requested")
		return act, nil
	case "cancel_end":
		m.releaseOf(s)
		was = m.subscriptionObject(s)
		m.endWithPeriod(s)
	case "resume":
		s.CancelAtPeriodEnd, s.CancelAt, s.CanceledAt, s.Reason = false, 0, 0, ""
	case "stay":
		m.releaseOf(s)
		return act, nil
	case "change":
		return m.changeFor(s, field("price"))
	default:
		return "", invalid("do", "The page does not know what to do.")
	}
	m.told("customer.subscription.updated", was, m.subscriptionObject(s))
	return act, nil
}

// releaseOf takes a change back that waits for the period's end.
func (m *mode) releaseOf(s *subscription) {
	if r := m.Schedules.get(s.Schedule); r != nil {
		m.release(r)
	}
}

// changeFor moves a subscription to another price: to more at once, the
// difference being paid at once, to less when the period ends.
func (m *mode) changeFor(s *subscription, id string) (string, *apiError) {
	choices := m.shown(s).Choices
	if !slices.ContainsFunc(choices, func(c choice) bool { return c.ID == id }) {
		return "", invalid("price", "Choose one of the plans.")
	}
	to, now := m.Prices.get(id), m.Prices.get(s.Items[0].Price)
	item := orderItem{ID: s.Items[0].ID, Price: id, Quantity: s.Items[0].Quantity}
	if s.Status == "trialing" || !m.lessThan(to, now) {
		return "change", m.alter(s, alteration{items: []orderItem{item}, proration: prorateNow, behavior: payOrFail, at: m.now})
	}
	r := m.schedule(s, map[string]string{})
	item.ID = ""
	next := phase{
		Start: s.PeriodEnd, End: nextBoundary(s.PeriodEnd, s.PeriodEnd, to.Interval, to.IntervalCount), Items: []orderItem{item},
		Proration: prorateNever, Metadata: map[string]string{},
	}
	m.rewrite(r, append(slices.Clone(r.Phases), next), r.EndBehavior, r.Metadata)
	return "later", nil
}

// newCard makes a card the one that everything of the customer is paid with.
func (m *mode) newCard(owner, number string) *apiError {
	card := cardBy(number)
	if card == nil {
		return invalid("card", "Your card number is not one of the test cards.")
	}
	if card.AtOnce {
		return card.declines().refusal()
	}
	r := m.newMethod(card)
	m.attach(r, owner)
	c := m.Customers.get(owner)
	was := m.customerObject(c)
	c.DefaultMethod = r.ID
	m.told("customer.updated", was, m.customerObject(c))
	for _, s := range m.Subscriptions.rows {
		if s.Customer == owner && !s.over() {
			was := m.subscriptionObject(s)
			s.DefaultMethod = r.ID
			m.told("customer.subscription.updated", was, m.subscriptionObject(s))
		}
	}
	return nil
}

// collectFor pays an open invoice.
func (m *mode) collectFor(owner, id string) *apiError {
	i := m.Invoices.get(id)
	if i == nil || i.Customer != owner || i.Status != "open" {
		return invalid("invoice", "There is nothing to pay.")
	}
	own := ""
	if s := m.Subscriptions.get(i.Subscription); s != nil {
		own = s.DefaultMethod
	}
	if d := m.collect(i, m.methodFor(owner, own)); d != nil {
		return d.refusal()
	}
	return nil
}

// invoicePage is what invoice.html shows.
type invoicePage struct {
	Title, Number, Date, Status, Total, Balance, Due string
	Lines                                            []struct{ Text, Time, Amount string }
}

func (s *site) showInvoice(w http.ResponseWriter, r *http.Request) {
	token := r.PathValue("token")
	id, _, _ := strings.Cut(token, ".")
	var p invoicePage
	err := s.either(func(m *mode) (bool, error) {
		i := m.Invoices.get(id)
		if i == nil || m.invoiceToken(i) != token || i.FinalizedAt == 0 {
			return false, nil
		}
		p = invoicePage{
			Title: "Invoice " + i.Number, Number: i.Number, Date: date(i.Created), Status: i.Status, Total: money(i.total(), i.Currency),
			Due: money(i.due(), i.Currency),
		}
		if i.drawn() != 0 {
			p.Balance = money(i.drawn(), i.Currency)
		}
		for _, l := range i.Lines {
			p.Lines = append(p.Lines, struct{ Text, Time, Amount string }{l.Description, date(l.Start) + " to " + date(l.End), money(l.Amount, i.Currency)})
		}
		return true, nil
	})
	switch {
	case errors.Is(err, errNotFound):
		s.note(w, http.StatusNotFound, "Not found", "There is no such invoice.")
	case err != nil:
		s.fail(w, err)
	default:
		s.show(w, http.StatusOK, "invoice.html", p)
	}
}
