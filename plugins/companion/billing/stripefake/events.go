package stripefake

import (
	"encoding/json"
	"reflect"
	"slices"
)

func eventEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/v1/events/{id}", "", func(c *call) (object, *apiError) {
			e := c.Events.get(c.id)
			if e == nil {
				return nil, noSuch("event", c.id, "id")
			}
			return c.eventObject(e), nil
		}},
		{"GET", "/v1/events", listParams + " type types[] created created.gt created.gte created.lt created.lte", func(c *call) (object, *apiError) {
			kind, kinds, created := c.str("type"), c.texts("types"), c.span("created")
			if kind != "" {
				kinds = append(kinds, kind)
			}
			return listed(c, "/v1/events", &c.Events, func(e *event) bool {
				return (len(kinds) == 0 || slices.Contains(kinds, e.Type)) && (created == nil || created(e.Created))
			}, c.eventObject)
		}},
	}
}

func (m *mode) eventObject(e *event) object {
	o := object{
		"id": e.ID, "object": "event", "api_version": APIVersion, "created": e.Created, "livemode": m.Livemode,
		"pending_webhooks": e.Pending, "type": e.Type, "data": e.Data, "request": object{"id": nil, "idempotency_key": nil},
	}
	if e.Cause != nil {
		o["request"] = object{"id": orNull(e.Cause.ID), "idempotency_key": orNull(e.Cause.Key)}
	}
	return o
}

// emit writes an event with the object as it is now, and sends it on its way to
// all who asked for its type.
func (m *mode) emit(kind string, o object) { m.emitChange(kind, o, nil) }

// told emits an update of an object that was rendered before, if it changed.
func (m *mode) told(kind string, before, after object) {
	if d := difference(before, after); len(d) > 0 {
		m.emitChange(kind, after, d)
	}
}

func (m *mode) emitChange(kind string, o, previous object) {
	data := object{"object": o}
	if previous != nil {
		data["previous_attributes"] = previous
	}
	b, err := json.Marshal(data)
	if err != nil {
		panic(err) // an object is made of texts, numbers and objects
	}
	e := m.Events.add(&event{ID: m.id("evt_1", longID-1), Type: kind, Created: m.now, Cause: m.by, Data: b})
	for _, r := range m.fake.options.Receivers {
		if r.Livemode != m.Livemode || len(r.Types) > 0 && !slices.Contains(r.Types, kind) {
			continue
		}
		e.Pending++
		m.Deliveries.add(&delivery{ID: e.ID + "/" + r.Name, Event: e.ID, Receiver: r.Name})
	}
}

// difference is what the object was before, of what is different now: of hashes
// the members that differ, of anything else the whole.
func difference(before, after object) object {
	d := object{}
	for k, old := range before {
		now := after[k]
		a, isA := old.(object)
		b, isB := now.(object)
		switch {
		case isA && isB && a["object"] == nil:
			if below := difference(a, b); len(below) > 0 {
				d[k] = below
			}
		case !reflect.DeepEqual(old, now):
			d[k] = old
		}
	}
	for k := range after {
		if _, ok := before[k]; !ok {
			d[k] = nil
		}
	}
	return d
}
