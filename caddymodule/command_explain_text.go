package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// writeExplained writes an explanation for people.
func writeExplained(w io.Writer, a *Explained) error {
	var b bytes.Buffer
	switch {
	case !a.Judged:
		b.WriteString("not judged\n")
	case a.Admitted:
		b.WriteString("admitted\n")
	default:
		b.WriteString(denialText(a.Denial))
	}
	if a.Caller != nil {
		fmt.Fprintf(&b, "caller: %s\n", callerText(a.Caller))
	}
	if a.Judged && a.Caller != nil {
		rules := strings.Join(a.Rules, ", ")
		if rules == "" {
			rules = "none matches"
		}
		fmt.Fprintf(&b, "rules:  %s\n", rules)
	}
	for _, note := range a.Notes {
		fmt.Fprintf(&b, "note:   %s\n", note)
	}
	if len(a.Counters) > 0 {
		b.WriteByte('\n')
		writeCounters(&b, a.Counters)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

func denialText(d *ExplainedDenial) string {
	var b strings.Builder
	fmt.Fprintf(&b, "denied: %d %s", d.Status, d.Error)
	if d.Rule != "" {
		fmt.Fprintf(&b, " by the rule %s", d.Rule)
	}
	if d.RetryAfterSeconds > 0 {
		fmt.Fprintf(&b, ", again in %s", time.Duration(d.RetryAfterSeconds)*time.Second)
	}
	fmt.Fprintf(&b, "\n        %s\n", d.Message)
	return b.String()
}

func callerText(c *ExplainedCaller) string {
	if c.Subject == "" {
		text := "anonymous, counted as " + c.IP + " (" + c.Reason
		if c.Verifier != "" {
			text += ", says " + c.Verifier
		}
		return text + ")"
	}
	text := c.Subject + " by " + c.Verifier
	if c.Account != "" && c.Account != c.Subject {
		text += ", for " + c.Account
	}
	if c.Plan != "" {
		text += ", plan " + c.Plan
	}
	if c.SubscriptionStatus != "" {
		text += " (" + c.SubscriptionStatus + ")"
	}
	return text
}

func writeCounters(b *bytes.Buffer, counters []ExplainedCounter) {
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "COUNTER\tRULE\tLIMIT\tFROM\tCOST\tUSED\tLEFT\tRESETS IN\t")
	for i := range counters {
		c := &counters[i]
		limit := number(c.Limit)
		if c.WindowSeconds > 0 {
			limit += "/" + seconds(c.WindowSeconds)
		}
		verdict := ""
		switch {
		case c.Exceeded && c.Shadow:
			verdict = "exceeded (shadow)"
		case c.Exceeded:
			verdict = "exceeded"
		}
		reset := "-"
		if c.ResetSeconds != nil {
			reset = seconds(*c.ResetSeconds)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n",
			c.Policy, c.Rule, limit, c.LimitFrom, c.Cost, c.Used, number(c.Remaining), reset, verdict)
	}
	_ = t.Flush() // a bytes.Buffer takes everything
}

func number(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

// seconds is a length of time for people: 12s, 1h30m, 9d.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second)).Round(time.Millisecond)
	if d >= 48*time.Hour {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	if d >= time.Minute {
		d = d.Round(time.Second)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
