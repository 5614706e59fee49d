package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// choice is the setter of an option with fixed words.
func choice(target *string, words ...string) func(string) error {
	return func(s string) error {
		if err := checkChoice(s, words...); err != nil {
			return err
		}
		*target = s
		return nil
	}
}

// onOff is the setter of an option that is on or off.
func onOff(target *bool) func(string) error {
	return func(s string) error {
		if err := checkChoice(s, "on", "off"); err != nil {
			return err
		}
		*target = s == "on"
		return nil
	}
}

// text is the setter of an option with one free argument.
func text(target *string, check func(string) error) func(string) error {
	return func(s string) error {
		if err := check(s); err != nil {
			return err
		}
		*target = s
		return nil
	}
}

// integer is the setter of an option with one whole number in low..high.
func integer(target *int, low, high int) func(string) error {
	return func(s string) error {
		n, err := parseInt(s, low, high)
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
