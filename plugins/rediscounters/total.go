package rediscounters

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// digestLength is how a row of an epoch's hash begins: with its account's digest.
// Nothing else in the hash has so long a name.
const digestLength = len(quota.Digest{})

// readTotal reads one row of an epoch's hash.
func readTotal(name, value string) (quota.Total, error) {
	var t quota.Total
	parts := strings.Split(name[digestLength:], "|")
	if len(parts) != 3 {
		return t, errPacked
	}
	var err error
	if t.Metric = parts[0]; !quota.ValidName(t.Metric) {
		return t, fmt.Errorf("%q is not a metric", t.Metric)
	}
	if t.Period, err = periodOf(parts[1]); err != nil {
		return t, err
	}
	if t.Start, err = strconv.ParseInt(parts[2], 10, 64); err != nil {
		return t, err
	}
	u := unpacker{[]byte(value)}
	for _, n := range []*int64{&t.Spent, &t.Refunded, &t.End} {
		if *n, err = u.int(); err != nil {
			return t, err
		}
	}
	account, err := u.string()
	t.Account = quota.Subject(account)
	return t, err
}

// periodOf is the inverse of periodLetter.
func periodOf(letter string) (quota.Period, error) {
	for p := quota.PeriodDay; p <= quota.PeriodNone; p++ {
		if letter == string(periodLetter(p)) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown period %q", letter)
}
