package quota

import (
	"errors"
	"fmt"
)

// Check refuses a charge that could not be counted exactly: counters call it
// before they touch anything.
func (c *Charge) Check() error {
	// One comparison for what is always so: negative numbers are large unsigned ones.
	if uint64(c.Cost|c.Need|c.Limit.Max) >= MaxAmount {
		if err := errors.Join(
			CheckAmount("the cost", c.Cost), CheckAmount("the need", c.Need), CheckAmount("the limit", c.Limit.Max),
		); err != nil {
			return err
		}
	}
	switch c.Key.Space {
	case SpaceRate:
		w := c.Limit.Window
		if w < MinWindow || w > MaxWindow || w%1e6 != 0 { // whole milliseconds
			return Rate{Window: w}.Validate()
		}
		return nil
	case SpaceUsage:
		return checkUsage(&c.Key, c.Account)
	}
	return fmt.Errorf("unknown space %d", c.Key.Space)
}

// CheckCharges refuses a reservation that could not be counted exactly.
func CheckCharges(cs []Charge) error {
	for i := range cs {
		c := &cs[i]
		if err := c.Check(); err != nil {
			return fmt.Errorf("charge %d (%q): %w", i, c.Key.Name, err)
		}
		for j := range i {
			if cs[j].Key == c.Key {
				return fmt.Errorf("charge %d (%q): charge %d names the same counter", i, c.Key.Name, j)
			}
		}
	}
	return nil
}

// Check refuses a receipt that no charge of usage could have given.
func (r *Receipt) Check() error {
	if r.Key.Space != SpaceUsage {
		return errors.New("a rate window is never given back")
	}
	if err := checkUsage(&r.Key, r.Account); err != nil {
		return err
	}
	return CheckAmount("the amount", r.Amount)
}

func checkUsage(k *Key, account Subject) error {
	if account == "" {
		return errors.New("usage without an account")
	}
	if k.Period > PeriodNone {
		return fmt.Errorf("unknown period %d", k.Period)
	}
	return nil
}
