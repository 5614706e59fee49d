// Package doctor has the words in which guests say how what they depend on is
// set up: what is well, what is doubtful, what is wrong, and what to write into
// the config or to run about it. It is for `caddy quota doctor`, and leaves the
// looking to those who know their servers and files.
package doctor

import "fmt"

// Level says how a check came out.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, but less than it could, or not for long
	Fail Level = "fail" // it does not do what the config asks for
)

// Finding is the outcome of one check.
type Finding struct {
	// Check is what was looked at, in a few words.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Detail is what was seen, in one line. It holds no secret.
	Detail string `json:"detail"`
	// Configure is what to write into the config, or to run; empty: nothing.
	Configure string `json:"configure,omitempty"`
}

// Well reports what is as it should be.
func Well(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: OK, Detail: fmt.Sprintf(format, args...)}
}

// Doubt reports what works, but not as well as it could.
func Doubt(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warn, Detail: fmt.Sprintf(format, args...)}
}

// Fault reports what does not work.
func Fault(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: Fail, Detail: fmt.Sprintf(format, args...)}
}

// Do adds what to write or to run.
func (f Finding) Do(configure string) Finding {
	f.Configure = configure
	return f
}

// Failed reports whether any of the checks failed.
func Failed(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == Fail {
			return true
		}
	}
	return false
}
