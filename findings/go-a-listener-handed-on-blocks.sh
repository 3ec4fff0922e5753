#!/usr/bin/env bash
# A Go listener whose File is handed to a child cannot be closed any more.
#
# (*net.TCPListener).File is the documented way to hand a listening socket to
# another process, as one of ExtraFiles of os/exec. That calls Fd, which puts the
# open file description into blocking mode, and the listener shares it: its next
# accept blocks in the kernel. Close then does not wake it up. The listener seems to
# work, since a connection ends the call; without one it hangs for ever.
# With the descriptor from SyscallConn nothing of that happens.
#
# Go 1.26.8. Needs go. Exits 1 where it is otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

cat >"$work/main.go" <<'GO'
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

func main() {
	fmt.Println(runtime.Version())
	for _, way := range []string{"File", "SyscallConn"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		var child *os.Process
		if way == "File" {
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				panic(err)
			}
			cmd := exec.Command("/bin/sleep", "5")
			cmd.ExtraFiles = []*os.File{f}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			f.Close()
			child = cmd.Process
		} else {
			raw, _ := l.(syscall.Conn).SyscallConn()
			raw.Control(func(fd uintptr) {
				pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "5"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, fd}})
				if err != nil {
					panic(err)
				}
				child, _ = os.FindProcess(pid)
			})
		}
		ended := make(chan bool)
		go func() {
			l.Accept()
			ended <- true
		}()
		time.Sleep(200 * time.Millisecond)
		go l.Close()
		select {
		case <-ended:
			fmt.Println(way+":", "Accept has ended with Close")
		case <-time.After(2 * time.Second):
			fmt.Println(way+":", "Accept hangs after Close")
		}
		child.Kill()
	}
	os.Exit(0)
}
GO
(cd "$work" && go run main.go) | tee "$work/said"
grep -qx 'File: Accept hangs after Close' "$work/said" && grep -qx 'SyscallConn: Accept has ended with Close' "$work/said" ||
	{ echo 'OTHERWISE' >&2; exit 1; }
