package stripefake

import (
	"slices"
	"strconv"
	"strings"
)

func catalogueEndpoints() []endpoint {
	const created = " created created.gt created.gte created.lt created.lte"
	return []endpoint{
		{"POST", "/v1/products", "id name description active metadata.*", createProduct},
		{"GET", "/v1/products/{id}", "", func(c *call) (object, *apiError) {
			r, bad := c.product(c.id, "id")
			if bad != nil {
				return nil, bad
			}
			return c.productObject(r), nil
		}},
		{"POST", "/v1/products/{id}", "name description active metadata.*", updateProduct},
		{"GET", "/v1/products", listParams + " active ids[]" + created, func(c *call) (object, *apiError) {
			ids, active, span := c.texts("ids"), c.boolean("active", true), c.span("created")
			return listed(c, "/v1/products", &c.Products, func(r *product) bool {
				return (len(ids) == 0 || slices.Contains(ids, r.ID)) && (!c.has("active") || r.Active == active) &&
					(span == nil || span(r.Created))
			}, c.productObject)
		}},
		{"POST", "/v1/prices", "currency product product_data.name product_data.id product_data.metadata.* unit_amount " +
			"recurring.interval recurring.interval_count recurring.usage_type lookup_key transfer_lookup_key nickname active " +
			"billing_scheme metadata.*", createPrice},
		{"GET", "/v1/prices/{id}", "", func(c *call) (object, *apiError) {
			r, bad := c.price(c.id, "id")
			if bad != nil {
				return nil, bad
			}
			return c.priceObject(r), nil
		}},
		{"POST", "/v1/prices/{id}", "lookup_key transfer_lookup_key nickname active metadata.*", updatePrice},
		{"GET", "/v1/prices", listParams + " active lookup_keys[] product type currency recurring.interval" + created, listPrices},
	}
}

func createProduct(c *call) (object, *apiError) {
	r := &product{
		ID: c.str("id"), Name: c.need("name"), Description: c.str("description"), Active: c.boolean("active", true),
		Metadata: c.metadata("metadata", nil), Created: c.now, Updated: c.now,
	}
	if c.Products.get(r.ID) != nil {
		e := invalid("id", "Product already exists.")
		e.Code = "resource_already_exists"
		c.fail(e)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.productObject(c.newProduct(r)), nil
}

func (m *mode) newProduct(r *product) *product {
	if r.ID == "" {
		r.ID = m.id("prod_", shortID)
	}
	m.Products.add(r)
	m.emit("product.created", m.productObject(r))
	return r
}

func updateProduct(c *call) (object, *apiError) {
	r, bad := c.product(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	was, next := c.productObject(r), *r
	if c.has("name") {
		next.Name = c.need("name")
	}
	if c.has("description") {
		next.Description = c.str("description")
	}
	next.Active, next.Metadata = c.boolean("active", r.Active), c.metadata("metadata", r.Metadata)
	if err := c.err(); err != nil {
		return nil, err
	}
	next.Updated = c.now
	*r = next
	c.told("product.updated", was, c.productObject(r))
	return c.productObject(r), nil
}

func createPrice(c *call) (object, *apiError) {
	recurring := c.in("recurring")
	r := &price{
		Currency: strings.ToLower(c.need("currency")), Amount: c.integer("unit_amount", -1), LookupKey: c.str("lookup_key"),
		Nickname: c.str("nickname"), Active: c.boolean("active", true), Metadata: c.metadata("metadata", nil), Created: c.now,
	}
	if c.has("recurring") {
		r.Interval = recurring.word("interval", "", "day", "week", "month", "year")
		r.IntervalCount = recurring.integer("interval_count", 1)
		if r.Interval == "" {
			c.fail(missing("recurring[interval]"))
		}
		if r.IntervalCount < 1 || r.IntervalCount > 1095 {
			c.fail(invalid("recurring[interval_count]", "Invalid interval_count: at most three years"))
		}
		if recurring.str("usage_type") == "metered" {
			c.fail(unsupported("recurring[usage_type]", "metered prices"))
		}
	}
	c.word("billing_scheme", "per_unit")
	if r.Amount < 0 {
		c.fail(missing("unit_amount"))
	}
	in, data := c.str("product"), c.in("product_data")
	switch {
	case in != "":
		_, bad := c.product(in, "product")
		if bad != nil {
			c.fail(bad)
		}
	case !c.has("product_data"):
		c.fail(missing("product"))
	default:
		data.need("name")
	}
	bad := c.lookupKeyFree(c, r.LookupKey, nil)
	if err := c.err(); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, bad
	}
	if in == "" {
		in = c.newProduct(&product{
			ID: data.str("id"), Name: data.str("name"), Active: true, Metadata: data.metadata("metadata", nil), Created: c.now, Updated: c.now,
		}).ID
	}
	r.Product = in
	return c.priceObject(c.newPrice(r)), nil
}

func (m *mode) newPrice(r *price) *price {
	r.ID = m.id("price_1", longID-1)
	m.freeLookupKey(r.LookupKey)
	m.Prices.add(r)
	m.emit("price.created", m.priceObject(r))
	return r
}

// lookupKeyFree refuses a key that another active price has, unless it is to be moved.
func (m *mode) lookupKeyFree(c *call, key string, own *price) *apiError {
	if key == "" || c.boolean("transfer_lookup_key", false) {
		return nil
	}
	for _, p := range m.Prices.rows {
		if p.LookupKey == key && p != own {
			return invalid("lookup_key", "A price (`%s`) already uses that lookup key.", p.ID)
		}
	}
	return nil
}

// freeLookupKey takes the key from whichever price has it.
func (m *mode) freeLookupKey(key string) {
	if key == "" {
		return
	}
	for _, p := range m.Prices.rows {
		if p.LookupKey == key {
			was := m.priceObject(p)
			p.LookupKey = ""
			m.told("price.updated", was, m.priceObject(p))
		}
	}
}

func updatePrice(c *call) (object, *apiError) {
	r, bad := c.price(c.id, "id")
	if bad != nil {
		return nil, bad
	}
	key, nickname := r.LookupKey, r.Nickname
	if c.has("lookup_key") {
		key = c.str("lookup_key")
	}
	if c.has("nickname") {
		nickname = c.str("nickname")
	}
	active, metadata := c.boolean("active", r.Active), c.metadata("metadata", r.Metadata)
	if bad := c.lookupKeyFree(c, key, r); bad != nil {
		return nil, bad
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if key != r.LookupKey {
		c.freeLookupKey(key)
	}
	was := c.priceObject(r)
	r.LookupKey, r.Nickname, r.Active, r.Metadata = key, nickname, active, metadata
	c.told("price.updated", was, c.priceObject(r))
	return c.priceObject(r), nil
}

func listPrices(c *call) (object, *apiError) {
	keys, span, active := c.texts("lookup_keys"), c.span("created"), c.boolean("active", true)
	product, currency := c.str("product"), c.str("currency")
	kind, interval := c.word("type", "", "one_time", "recurring"), c.in("recurring").str("interval")
	if len(keys) > 10 {
		c.fail(invalid("lookup_keys", "You can only pass up to 10 lookup keys."))
	}
	return listed(c, "/v1/prices", &c.Prices, func(r *price) bool {
		return (len(keys) == 0 || r.LookupKey != "" && slices.Contains(keys, r.LookupKey)) && (span == nil || span(r.Created)) &&
			(!c.has("active") || r.Active == active) && (product == "" || r.Product == product) && (kind == "" || r.kind() == kind) &&
			(currency == "" || r.Currency == currency) && (interval == "" || r.Interval == interval)
	}, c.priceObject)
}

func (m *mode) product(id, param string) (*product, *apiError) {
	if r := m.Products.get(id); r != nil {
		return r, nil
	}
	return nil, noSuch("product", id, param)
}

func (m *mode) price(id, param string) (*price, *apiError) {
	if r := m.Prices.get(id); r != nil {
		return r, nil
	}
	return nil, noSuch("price", id, param)
}

func (p *price) kind() string {
	if p.Interval == "" {
		return "one_time"
	}
	return "recurring"
}

func (m *mode) productObject(r *product) object {
	return object{
		"id": r.ID, "object": "product", "livemode": m.Livemode, "created": r.Created, "updated": r.Updated, "active": r.Active,
		"name": r.Name, "description": orNull(r.Description), "metadata": metadataOf(r.Metadata), "default_price": nil,
		"images": []any{}, "marketing_features": []any{}, "package_dimensions": nil, "shippable": nil,
		"statement_descriptor": nil, "tax_code": nil, "unit_label": nil, "url": nil,
	}
}

func (m *mode) priceObject(r *price) object {
	o := object{
		"id": r.ID, "object": "price", "livemode": m.Livemode, "created": r.Created, "active": r.Active, "product": r.Product,
		"currency": r.Currency, "unit_amount": r.Amount, "unit_amount_decimal": strconv.FormatInt(r.Amount, 10),
		"lookup_key": orNull(r.LookupKey), "nickname": orNull(r.Nickname), "metadata": metadataOf(r.Metadata),
		"billing_scheme": "per_unit", "type": r.kind(), "recurring": nil, "custom_unit_amount": nil, "tax_behavior": "unspecified",
		"tiers_mode": nil, "transform_quantity": nil,
	}
	if r.Interval != "" {
		o["recurring"] = object{
			"interval": r.Interval, "interval_count": r.IntervalCount, "usage_type": "licensed", "meter": nil,
		}
	}
	return o
}
