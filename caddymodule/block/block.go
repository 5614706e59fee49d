// Package block reads the blocks of options in a Caddyfile, of the host and of
// its guests, so that the same slip gets the same error wherever it is made:
// with the line, what to write instead, and of what stands twice the first
// line. What an option means is left to whoever sets it.
package block

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Option is one line of a block.
type Option struct {
	// Usage is the line's grammar: every error about its arguments shows it.
	Usage string
	// Min and Max bound the number of arguments; Max < 0: any number.
	Min, Max int
	// Repeat allows the option more than once.
	Repeat bool
	// Secret keeps the arguments out of errors about their number.
	Secret bool
	// Set takes the arguments of an option without a block. Its error gets the
	// option's name, the file and the line.
	Set func(args []string) error
	// SetAt is Set for an option that must remember where it stands, as
	// "Caddyfile:12": what is wrong with it may show only later.
	SetAt func(place string, args []string) error
	// Parse reads an option with a grammar of its own, instead of Set. The
	// dispenser stands on the option's name; errors name file and line themselves.
	Parse func(d *caddyfile.Dispenser) error
}

// One is an option with exactly one argument, which is not empty: an unset
// {$VAR} must not mean the default.
func One(usage string, set func(string) error) Option {
	return Option{Usage: usage, Min: 1, Max: 1, Set: func(args []string) error {
		if args[0] == "" {
			return errors.New("the argument is empty; write: " + usage)
		}
		return set(args[0])
	}}
}

// Secret is One for what must not be quoted.
func Secret(usage string, set func(string) error) Option {
	o := One(usage, set)
	o.Secret = true
	return o
}

// Parse reads the block that follows the dispenser's token, if there is one:
// each line must be one of the options, and none but a repeatable one may come
// twice. where names the block in errors.
func Parse(d *caddyfile.Dispenser, where string, options map[string]Option) error {
	lines := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, ok := options[name]
		switch {
		case name == "{":
			return d.Errf("unexpected block in %s: the option before it takes none", where)
		case !ok:
			return d.Errf("unknown option %q in %s: want one of %s", name, where, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if line, dup := lines[name]; dup && !o.Repeat {
			return d.Errf("duplicate option %q in %s: it stands in line %d already; keep one of them", name, where, line)
		}
		lines[name] = d.Line()
		if err := o.read(d); err != nil {
			return err
		}
	}
	return nil
}

func (o *Option) read(d *caddyfile.Dispenser) error {
	if o.Parse != nil {
		return o.Parse(d)
	}
	name, place := d.Val(), fmt.Sprintf("%s:%d", d.File(), d.Line())
	args, err := o.Args(d)
	if err != nil {
		return err
	}
	set := o.Set
	if o.SetAt != nil {
		set = func(args []string) error { return o.SetAt(place, args) }
	}
	if err := set(args); err != nil {
		return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
	}
	return nil
}

// Args are the rest of the line, as many as the option wants. The dispenser
// stands on the option's name.
func (o *Option) Args(d *caddyfile.Dispenser) ([]string, error) {
	name := d.Val()
	args := d.RemainingArgs()
	switch surplus := o.Max >= 0 && len(args) > o.Max; {
	case len(args) < o.Min:
		return nil, d.Errf("option %q: an argument is missing; write: %s", name, o.Usage)
	case surplus && o.Secret:
		return nil, d.Errf("option %q: unexpected argument; write: %s", name, o.Usage)
	case surplus:
		return nil, d.Errf("option %q: unexpected argument %q; write: %s", name, args[o.Max], o.Usage)
	}
	return args, nil
}

// NoArgs refuses arguments of a block that takes none.
func NoArgs(d *caddyfile.Dispenser, usage string) error {
	if d.NextArg() {
		return d.Errf("unexpected argument %q; write: %s", d.Val(), usage)
	}
	return nil
}

// Bare reads a directive without arguments and options.
func Bare(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	name := d.Val()
	usage := name + " [<matcher>], where a matcher is *, /path or @name"
	if err := NoArgs(d, usage); err != nil {
		return err
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("unexpected %q: %s has no options; write: %s", d.Val(), name, usage)
	}
	return nil
}

// Text is the setter of an option with any text.
func Text(target *string) func(string) error {
	return func(s string) error {
		*target = s
		return nil
	}
}

// Duration is the setter of an option with a length of time above 0.
func Duration(target *caddy.Duration) func(string) error {
	return func(s string) error {
		d, err := ParseDuration(s)
		if err != nil {
			return err
		}
		if d <= 0 {
			return fmt.Errorf("%q is not above 0", s)
		}
		*target = caddy.Duration(d)
		return nil
	}
}

// ParseDuration reads a length of time as Caddy does: with a unit, d included.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" || len(s) > 64 {
		return 0, errors.New("a length of time is missing, e.g. 50ms, 60s, 10m or 1d")
	}
	d, err := caddy.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a length of time: write a number with a unit, e.g. 50ms, 60s, 10m or 1d", s)
	}
	return d, nil
}
