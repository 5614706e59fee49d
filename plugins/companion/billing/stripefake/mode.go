package stripefake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"strings"
	"time"
)

// object is a JSON object as the API answers it.
type object = map[string]any

// mode is the books of one mode, test or live, which know nothing of each other.
// All of its methods run under the fake's lock.
type mode struct {
	Livemode      bool
	Sequence      uint64
	Customers     table[customer, *customer]
	Products      table[product, *product]
	Prices        table[price, *price]
	Methods       table[method, *method]
	Sessions      table[session, *session]
	Portals       table[portal, *portal]
	Subscriptions table[subscription, *subscription]
	Schedules     table[schedule, *schedule]
	Invoices      table[invoice, *invoice]
	Intents       table[intent, *intent]
	Charges       table[charge, *charge]
	Refunds       table[refund, *refund]
	Disputes      table[dispute, *dispute]
	Events        table[event, *event]
	Replays       table[replay, *replay]
	Deliveries    table[delivery, *delivery]

	fake *Fake
	now  int64  // of what is being done
	by   *cause // the request that is being answered, if any
}

// Lengths of ids behind their prefix.
const (
	shortID = 14
	longID  = 24
	// An address of a page is a password for what it shows.
	secretID = 58
)

// id is a new id: a keyed digest of a number that never comes twice, so that ids
// follow from the seed, and cannot be guessed where that is random.
func (m *mode) id(prefix string, length int) string {
	m.Sequence++
	return prefix + m.digest(prefix, m.Sequence, length)
}

func (m *mode) digest(purpose string, n uint64, length int) string {
	mac := hmac.New(sha256.New, []byte(m.fake.state.Seed))
	mac.Write([]byte(purpose))
	if m.Livemode {
		mac.Write([]byte{'L'})
	}
	mac.Write(binary.BigEndian.AppendUint64(nil, n))
	sum := mac.Sum(nil)
	wide := append(sum, sha256Sum(sum)...) //nolint:gocritic // a new slice is meant: sum is not used after
	text := new(big.Int).SetBytes(wide).Text(62)
	if len(text) < length {
		text = strings.Repeat("0", length-len(text)) + text
	}
	return text[:length]
}

func sha256Sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// Small helpers of rendering: what is empty is null.

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func timeOrNull(t int64) any {
	if t == 0 {
		return nil
	}
	return t
}

func metadataOf(m map[string]string) object {
	o := object{}
	for k, v := range m {
		o[k] = v
	}
	return o
}

const (
	day  = int64(24 * time.Hour / time.Second)
	hour = int64(time.Hour / time.Second)
)
