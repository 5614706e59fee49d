package stripefake

import (
	"net/http"
	"strings"
)

// listParams are the parameters of every list.
const listParams = "limit starting_after ending_before"

// listed is one page of a table's rows that match, the newest first.
func listed[T any, P keyed[T]](c *call, url string, t *table[T, P], match func(P) bool, render func(P) object) (object, *apiError) {
	return paged(c, url, t.newest(match), render)
}

// paged is one page of rows, cut by the cursors and the limit of the request.
func paged[T any, P keyed[T]](c *call, url string, rows []P, render func(P) object) (object, *apiError) {
	limit := c.integer("limit", 10)
	after, before := c.str("starting_after"), c.str("ending_before")
	switch {
	case c.err() != nil:
		return nil, c.err()
	case limit < 1 || limit > 100:
		return nil, invalid("limit", "Invalid integer: limit must be between 1 and 100")
	case after != "" && before != "":
		return nil, invalid("", "You may only specify one of these parameters: ending_before, starting_after")
	}
	cursor := func(name, id string) (int, *apiError) {
		for i, row := range rows {
			if row.key() == id {
				return i, nil
			}
		}
		return 0, noSuch("object", id, name)
	}
	var more bool
	switch {
	case before != "":
		i, bad := cursor("ending_before", before)
		if bad != nil {
			return nil, bad
		}
		rows = rows[:i]
		if more = len(rows) > int(limit); more {
			rows = rows[len(rows)-int(limit):]
		}
	default:
		if after != "" {
			i, bad := cursor("starting_after", after)
			if bad != nil {
				return nil, bad
			}
			rows = rows[i+1:]
		}
		if more = len(rows) > int(limit); more {
			rows = rows[:limit]
		}
	}
	data := make([]any, len(rows))
	for i, row := range rows {
		data[i] = render(row)
	}
	return listOf(url, data, more), nil
}

func listOf(url string, data []any, more bool) object {
	if data == nil {
		data = []any{}
	}
	return object{"object": "list", "url": url, "has_more": more, "data": data}
}

// checkExpand refuses paths that no answer could follow.
func checkExpand(path string) *apiError {
	if path == "" || strings.Count(path, ".") > 4 {
		return invalid("expand", "This property cannot be expanded (%s): at most four levels are.", path)
	}
	return nil
}

// expand replaces an id in the answer by the object, or adds what is only there
// when it is asked for. The path goes through lists by "data".
func (m *mode) expand(o object, path string) *apiError {
	return m.expandIn(o, strings.Split(path, "."), path)
}

func (m *mode) expandIn(at any, steps []string, path string) *apiError {
	switch at := at.(type) {
	case []any:
		for _, x := range at {
			if bad := m.expandIn(x, steps, path); bad != nil {
				return bad
			}
		}
		return nil
	case object:
		if len(steps) == 0 {
			return nil
		}
		value, known := at[steps[0]]
		if !known {
			value, known = m.includable(at, steps[0])
		}
		if !known {
			return notExpandable(path)
		}
		if id, ok := value.(string); ok {
			if value = m.find(id); value == nil {
				return notExpandable(path)
			}
		}
		at[steps[0]] = value
		return m.expandIn(value, steps[1:], path)
	case nil:
		return nil // nothing there to be expanded
	default:
		return notExpandable(path)
	}
}

func notExpandable(path string) *apiError {
	e := invalid("expand[]", "This property cannot be expanded (%s).", path)
	e.Status = http.StatusBadRequest
	return e
}

// includable is what an answer holds only if it is asked for.
func (m *mode) includable(o object, name string) (any, bool) {
	id, _ := o["id"].(string)
	switch kind, _ := o["object"].(string); {
	case kind == "checkout.session" && name == "line_items":
		return m.sessionLines(m.Sessions.get(id)), true
	case kind == "invoice" && name == "payments":
		return m.paymentList(m.Invoices.get(id)), true
	case kind == "invoice" && name == "confirmation_secret":
		return m.confirmation(m.Invoices.get(id)), true
	case kind == "customer" && name == "subscriptions":
		return m.customerSubscriptions(id), true
	case kind == "charge" && name == "refunds":
		return m.chargeRefunds(id), true
	default:
		return nil, false
	}
}

// find is the object with that id, whatever its kind, or nil.
func (m *mode) find(id string) any {
	var found object
	switch prefix, _, _ := strings.Cut(id, "_"); prefix {
	case "cus":
		found = render(m.Customers.get(id), m.customerObject)
	case "prod":
		found = render(m.Products.get(id), m.productObject)
	case "price":
		found = render(m.Prices.get(id), m.priceObject)
	case "pm":
		found = render(m.Methods.get(id), m.methodObject)
	case "sub":
		if strings.HasPrefix(id, "sub_sched_") {
			found = render(m.Schedules.get(id), m.scheduleObject)
			break
		}
		found = render(m.Subscriptions.get(id), m.subscriptionObject)
	case "in":
		found = render(m.Invoices.get(id), m.invoiceObject)
	case "pi":
		found = render(m.Intents.get(id), m.intentObject)
	case "ch":
		found = render(m.Charges.get(id), m.chargeObject)
	case "cs":
		found = render(m.Sessions.get(id), m.sessionObject)
	}
	if found == nil {
		return nil
	}
	return found
}

// render is the object of a row, or nil without one.
func render[T any](row *T, as func(*T) object) object {
	if row == nil {
		return nil
	}
	return as(row)
}
