package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// option is one line of a Caddyfile block.
type option struct {
	// usage is the line's grammar: every error about its arguments shows it.
	usage string
	// min and max bound the number of arguments; max < 0: any number.
	min, max int
	// repeat allows the option more than once.
	repeat bool
	// set takes the arguments of an option without a block. Its error gets the
	// file and line.
	set func(args []string) error
	// setAt is set for an option that must remember where it stands, as
	// "Caddyfile:12": what is wrong with it may show only when the config starts.
	setAt func(place string, args []string) error
	// parse reads an option with a grammar of its own, instead of set. The
	// dispenser stands on the option's name; errors name file and line themselves.
	parse func(d *caddyfile.Dispenser) error
}

// parseBlock reads the block that follows the dispenser's token, if there is
// one: each line must be one of the options, and none but a repeatable one may
// come twice. where names the block in errors.
func parseBlock(d *caddyfile.Dispenser, where string, options map[string]option) error {
	lines := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, ok := options[name]
		if !ok {
			return unknownOption(d, where, options)
		}
		if line, dup := lines[name]; dup && !o.repeat {
			return d.Errf("duplicate option %q in %s: it stands in line %d already; keep one of them", name, where, line)
		}
		lines[name] = d.Line()
		if err := o.read(d); err != nil {
			return err
		}
	}
	return nil
}

func (o *option) read(d *caddyfile.Dispenser) error {
	if o.parse != nil {
		return o.parse(d)
	}
	name, place := d.Val(), fmt.Sprintf("%s:%d", d.File(), d.Line())
	args, err := o.args(d)
	if err != nil {
		return err
	}
	set := o.set
	if o.setAt != nil {
		set = func(args []string) error { return o.setAt(place, args) }
	}
	if err := set(args); err != nil {
		return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
	}
	return nil
}

// args are the rest of the line, as many as the option wants.
func (o *option) args(d *caddyfile.Dispenser) ([]string, error) {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) < o.min {
		return nil, d.Errf("option %q: an argument is missing; write: %s", name, o.usage)
	}
	if o.max >= 0 && len(args) > o.max {
		return nil, d.Errf("option %q: unexpected argument %q; write: %s", name, args[o.max], o.usage)
	}
	return args, nil
}

func unknownOption(d *caddyfile.Dispenser, where string, options map[string]option) error {
	if d.Val() == "{" {
		return d.Errf("unexpected block in %s: the option before it takes none", where)
	}
	return d.Errf("unknown option %q in %s: want one of %s", d.Val(), where, list(sortedNames(options)))
}

// unexpectedArgs refuses arguments of a block that takes none.
func unexpectedArgs(d *caddyfile.Dispenser, usage string) error {
	if d.NextArg() {
		return d.Errf("unexpected argument %q; write: %s", d.Val(), usage)
	}
	return nil
}

// choice is the setter of an option with fixed words.
func choice(target *string, words ...string) func([]string) error {
	return func(args []string) error {
		if err := checkChoice(args[0], words...); err != nil {
			return err
		}
		*target = args[0]
		return nil
	}
}

// onOff is the setter of an option that is on or off.
func onOff(target *bool) func([]string) error {
	return func(args []string) error {
		if err := checkChoice(args[0], "on", "off"); err != nil {
			return err
		}
		*target = args[0] == "on"
		return nil
	}
}

// text is the setter of an option with one free argument.
func text(target *string, check func(string) error) func([]string) error {
	return func(args []string) error {
		if err := check(args[0]); err != nil {
			return err
		}
		*target = args[0]
		return nil
	}
}

// duration is the setter of an option with a length of time above 0.
func duration(target *caddy.Duration) func([]string) error {
	return func(args []string) error {
		dur, err := parseDuration(args[0])
		if err != nil {
			return err
		}
		if dur <= 0 {
			return fmt.Errorf("%q is not above 0", args[0])
		}
		*target = caddy.Duration(dur)
		return nil
	}
}

// integer is the setter of an option with one whole number in low..high.
func integer(target *int, low, high int) func([]string) error {
	return func(args []string) error {
		n, err := parseInt(args[0], low, high)
		if err != nil {
			return err
		}
		*target = n
		return nil
	}
}

func parseInt(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a whole number in %d..%d", s, low, high)
	}
	return n, nil
}

// parseDuration reads a length of time as Caddy does: with a unit, d included.
func parseDuration(s string) (time.Duration, error) {
	if s == "" || len(s) > 64 {
		return 0, errors.New("a length of time is missing, e.g. 60s, 10m, 1h or 1d")
	}
	dur, err := caddy.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a length of time: write a number with a unit, e.g. 60s, 10m, 1h or 1d", s)
	}
	return dur, nil
}

// checkChoice reports whether word is one of words.
func checkChoice(word string, words ...string) error {
	if slices.Contains(words, word) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", word, list(words))
}

// linked says which modules of a namespace this build has.
func linked(namespace string) string {
	var names []string
	for _, m := range caddy.GetModules(namespace) {
		names = append(names, m.ID.Name())
	}
	if len(names) == 0 {
		return "this build has none; add one with xcaddy build --with"
	}
	slices.Sort(names)
	return "this build has " + list(names) + "; others are added with xcaddy build --with"
}

// list writes words for an error: "a, b".
func list(words []string) string { return strings.Join(words, ", ") }

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
