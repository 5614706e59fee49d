package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unit is where the settings of a release are documented.
const unit = "config/systemd/quotagate.service"

// settings are what a unit says of the runtime, and of how exactly the kernel
// wakes it.
type settings struct {
	env   []string
	slack time.Duration // TimerSlackNSec=; 0: the system's
}

// released are the settings of the unit.
func released() (s settings, err error) {
	text, err := os.ReadFile(unit)
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "Environment":
			for word := range strings.FieldsSeq(value) {
				if strings.HasPrefix(word, "GO") {
					s.env = append(s.env, word)
				}
			}
		case "TimerSlackNSec":
			if s.slack, err = time.ParseDuration(value); err != nil {
				return s, fmt.Errorf("%s: %w", unit, err)
			}
		}
	}
	if len(s.env) == 0 || s.slack == 0 {
		return s, fmt.Errorf("%s has no settings of the runtime", unit)
	}
	return s, nil
}

// String is for people.
func (s settings) String() string {
	words := strings.Join(s.env, " ")
	if s.slack != 0 {
		words += " TimerSlackNSec=" + s.slack.String()
	}
	return words
}

// start starts the command with the settings. A process has the timer slack of
// the thread that started it (prctl(2)).
func (s settings) start(cmd *exec.Cmd) error {
	cmd.Env = append(cmd.Env, s.env...)
	if s.slack == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(s.slack), 0, 0, 0); err != nil {
		return fmt.Errorf("setting the timer slack: %w", err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0: what the thread had at first
	return cmd.Start()
}
