package main

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the child, which is stopped
// in order instead, and end the child with its parent should that be killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
