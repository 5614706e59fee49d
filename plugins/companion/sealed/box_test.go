package sealed

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const key = "a key of thirty-two bytes or more"

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	b, err := NewBox(key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewBox("another " + key)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text, context := rapid.String().Draw(t, "text"), rapid.String().Draw(t, "context")
		sealed := b.Seal(text, context)
		if got, err := b.Open(sealed, context); err != nil || got != text {
			t.Fatalf("opened %q, %v", got, err)
		}
		if len(text) > 3 && strings.Contains(sealed, text) {
			t.Fatal("the text can be read")
		}
		if b.Seal(text, context) == sealed {
			t.Fatal("sealed twice, it looks the same")
		}
		if _, err := b.Open(sealed, context+"x"); !errors.Is(err, ErrOpen) {
			t.Fatalf("opens in another context: %v", err)
		}
		if _, err := other.Open(sealed, context); !errors.Is(err, ErrOpen) {
			t.Fatalf("opens with another key: %v", err)
		}
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "altered")
		altered := sealed[:i] + string(sealed[i]^1) + sealed[i+1:]
		if _, err := b.Open(altered, context); !errors.Is(err, ErrOpen) {
			t.Fatalf("opens though it was altered: %v", err)
		}
	})
}

func TestShortKeysAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := NewBox(strings.Repeat("x", MinKey-1)); err == nil {
		t.Error("a key of 31 bytes is accepted")
	}
}
