package stripefake

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Card is one of Stripe's test cards: what happens is known by its number.
type Card struct {
	// Number is 13 to 19 digits, Brand visa, mastercard or amex.
	Number, Brand string
	// Method is the payment method's name in tests (pm_card_visa), Token its token.
	Method string
	// Meaning is one line for a person.
	Meaning string
	// Code and DeclineCode are how its payments fail; empty: they do not.
	Code, DeclineCode string
	// AtOnce cards are refused when they are attached to a customer already;
	// others only when they are charged.
	AtOnce bool
	// Disputed payments succeed, and are contested as fraudulent.
	Disputed bool
}

// Cards are the numbers that the fake knows. All others are refused: no real
// number may be tried here.
func Cards() []Card {
	return []Card{
		{Number: "4242424242424242", Brand: "visa", Method: "pm_card_visa", Meaning: "pays"},
		{Number: "5555555555554444", Brand: "mastercard", Method: "pm_card_mastercard", Meaning: "pays"},
		{Number: "378282246310005", Brand: "amex", Method: "pm_card_amex", Meaning: "pays"},
		{Number: "4000000000000341", Brand: "visa", Method: "pm_card_chargeCustomerFail", Code: "card_declined", DeclineCode: "generic_decline",
			Meaning: "is accepted for a trial, and declined when it is charged"},
		{Number: "4000000000000002", Brand: "visa", Method: "pm_card_visa_chargeDeclined", Code: "card_declined", DeclineCode: "generic_decline",
			AtOnce: true, Meaning: "is declined"},
		{Number: "4000000000009995", Brand: "visa", Method: "pm_card_visa_chargeDeclinedInsufficientFunds", Code: "card_declined",
			DeclineCode: "insufficient_funds", AtOnce: true, Meaning: "has insufficient funds"},
		{Number: "4000000000009987", Brand: "visa", Method: "pm_card_visa_chargeDeclinedLostCard", Code: "card_declined", DeclineCode: "lost_card",
			AtOnce: true, Meaning: "was lost"},
		{Number: "4000000000000069", Brand: "visa", Method: "pm_card_chargeDeclinedExpiredCard", Code: "expired_card", AtOnce: true,
			Meaning: "has expired"},
		{Number: "4000000000000127", Brand: "visa", Method: "pm_card_chargeDeclinedIncorrectCvc", Code: "incorrect_cvc", AtOnce: true,
			Meaning: "comes with a wrong security code"},
		{Number: "4000000000000119", Brand: "visa", Method: "pm_card_chargeDeclinedProcessingError", Code: "processing_error", AtOnce: true,
			Meaning: "fails with a processing error"},
		{Number: "4000000000000259", Brand: "visa", Method: "pm_card_createDispute", Disputed: true, Meaning: "pays, and the payment is disputed"},
	}
}

// cardBy is the card of that number (spaces are ignored) or method name, or nil.
func cardBy(name string) *Card {
	name = strings.ReplaceAll(strings.TrimSpace(name), " ", "")
	if token, ok := strings.CutPrefix(name, "tok_"); ok {
		name = "pm_card_" + token
	}
	cards := Cards()
	if i := slices.IndexFunc(cards, func(c Card) bool { return c.Number == name || c.Method == name }); i >= 0 {
		return &cards[i]
	}
	return nil
}

// declines is how a payment with the card fails, or nil.
func (c *Card) declines() *decline {
	if c == nil || c.Code == "" {
		return nil
	}
	return newDecline(c.Code, c.DeclineCode)
}

// newDecline is a decline with the words that Stripe has for it.
func newDecline(code, declineCode string) *decline {
	message := "Your card was declined."
	switch {
	case declineCode == "insufficient_funds":
		message = "Your card has insufficient funds."
	case code == "expired_card":
		message = "Your card has expired."
	case code == "incorrect_cvc":
		message = "Your card's security code is incorrect."
	case code == "processing_error":
		message = "An error occurred while processing your card. Try again in a little bit."
	}
	return &decline{Code: code, DeclineCode: declineCode, Message: message}
}

// refusal is the answer of 402 that a decline earns.
func (d *decline) refusal() *apiError {
	return &apiError{
		Status: http.StatusPaymentRequired, Type: typeCard, Code: d.Code, DeclineCode: d.DeclineCode, Message: d.Message, Charge: d.Charge,
	}
}

func methodEndpoints() []endpoint {
	return []endpoint{
		{"POST", "/v1/payment_methods", "type card.token card.number card.exp_month card.exp_year card.cvc metadata.*", createMethod},
		{"GET", "/v1/payment_methods/{id}", "", func(c *call) (object, *apiError) {
			r := c.Methods.get(c.id)
			if r == nil {
				return nil, noSuch("PaymentMethod", c.id, "id")
			}
			return c.methodObject(r), nil
		}},
		{"POST", "/v1/payment_methods/{id}/attach", "customer", attachMethod},
		{"POST", "/v1/payment_methods/{id}/detach", "", detachMethod},
		{"GET", "/v1/payment_methods", listParams + " customer type", func(c *call) (object, *apiError) {
			customer := c.need("customer")
			return listed(c, "/v1/payment_methods", &c.Methods, ofCustomer(customer), c.methodObject)
		}},
		{"GET", "/v1/customers/{id}/payment_methods", listParams + " type", func(c *call) (object, *apiError) {
			if _, bad := c.customer(c.id, "id"); bad != nil {
				return nil, bad
			}
			return listed(c, "/v1/customers/"+c.id+"/payment_methods", &c.Methods, ofCustomer(c.id), c.methodObject)
		}},
	}
}

func ofCustomer(id string) func(*method) bool {
	return func(r *method) bool { return r.Customer == id }
}

func createMethod(c *call) (object, *apiError) {
	c.word("type", "card")
	in := c.in("card")
	name := in.str("token")
	if name == "" {
		name = in.need("number")
	}
	metadata := c.metadata("metadata", nil)
	if err := c.err(); err != nil {
		return nil, err
	}
	card := cardBy(name)
	if card == nil {
		e := invalid("card[number]", "Your card number is not one of the test cards.")
		e.Status, e.Type, e.Code = http.StatusPaymentRequired, typeCard, "incorrect_number"
		return nil, e
	}
	r := c.newMethod(card)
	r.Metadata = metadata
	return c.methodObject(r), nil
}

func (m *mode) newMethod(card *Card) *method {
	return m.Methods.add(&method{
		ID: m.id("pm_1", longID-1), Brand: card.Brand, Last4: card.Number[len(card.Number)-4:], Card: card.Method, Created: m.now,
		ExpMonth: 12, ExpYear: int64(time.Unix(m.now, 0).UTC().Year()) + 2, Metadata: map[string]string{},
	})
}

func attachMethod(c *call) (object, *apiError) {
	owner := c.need("customer")
	if err := c.err(); err != nil {
		return nil, err
	}
	if _, bad := c.customer(owner, "customer"); bad != nil {
		return nil, bad
	}
	r := c.Methods.get(c.id)
	card := cardBy(c.id) // a test method is copied for each customer
	switch {
	case r != nil && r.Customer != "" && r.Customer != owner:
		return nil, invalid("", "The payment method you provided has already been attached to a customer.")
	case r != nil:
		card = cardBy(r.Card)
	case card == nil:
		return nil, noSuch("PaymentMethod", c.id, "id")
	}
	if card.AtOnce {
		return nil, card.declines().refusal()
	}
	if r == nil {
		r = c.newMethod(card)
	}
	c.attach(r, owner)
	return c.methodObject(r), nil
}

func (m *mode) attach(r *method, owner string) {
	if r.Customer == owner {
		return
	}
	r.Customer = owner
	m.emit("payment_method.attached", m.methodObject(r))
}

func detachMethod(c *call) (object, *apiError) {
	r := c.Methods.get(c.id)
	if r == nil || r.Customer == "" {
		return nil, noSuch("PaymentMethod", c.id, "id")
	}
	if owner := c.Customers.get(r.Customer); owner != nil && owner.DefaultMethod == r.ID {
		was := c.customerObject(owner)
		owner.DefaultMethod = ""
		c.told("customer.updated", was, c.customerObject(owner))
	}
	for _, s := range c.Subscriptions.rows {
		if s.DefaultMethod == r.ID && !s.over() {
			was := c.subscriptionObject(s)
			s.DefaultMethod = ""
			c.told("customer.subscription.updated", was, c.subscriptionObject(s))
		}
	}
	r.Customer = ""
	c.emit("payment_method.detached", c.methodObject(r))
	return c.methodObject(r), nil
}

func (m *mode) methodObject(r *method) object {
	return object{
		"id": r.ID, "object": "payment_method", "livemode": m.Livemode, "created": r.Created, "type": "card",
		"customer": orNull(r.Customer), "metadata": metadataOf(r.Metadata), "allow_redisplay": "unspecified",
		"billing_details": object{"address": nil, "email": nil, "name": nil, "phone": nil, "tax_id": nil},
		"card": object{
			"brand": r.Brand, "display_brand": r.Brand, "country": "US", "exp_month": r.ExpMonth, "exp_year": r.ExpYear,
			"fingerprint": nil, "funding": "credit", "last4": r.Last4, "checks": nil, "generated_from": nil, "networks": nil,
			"three_d_secure_usage": nil, "wallet": nil,
		},
	}
}
