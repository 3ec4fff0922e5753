// Package load shows, through the built binary, that a crowd does
// not keep good clients out, and that nothing is left of those who went.
package load

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/posterntest"
)

// descriptors are needed by each of the two processes: this one has both ends
// of the upstream's connections, too.
const descriptors = 6000

func TestMain(m *testing.M) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil || limit.Cur < descriptors {
		fmt.Fprintf(os.Stderr, "these tests need %d file descriptors, and the hard limit is %d (%v): raise it with ulimit -Hn\n",
			descriptors, limit.Max, err)
		os.Exit(1)
	}
	posterntest.Main(m)
}

func start(t *testing.T, env map[string]string) *posterntest.Proxy {
	t.Helper()
	imap := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	pop3 := posterntest.StartUpstream(t, posterntest.POP3Greeting, posterntest.POP3Reply)
	all := map[string]string{"UPSTREAM_IMAP": imap.URL("imap"), "UPSTREAM_POP3": pop3.URL("pop3")}
	for k, v := range env {
		all[k] = v
	}
	return posterntest.Start(t, all)
}

// caller comes from any address of 127.1.0.0/16, chosen by number.
func caller(number int) posterntest.Caller {
	return posterntest.Caller{From: net.IPv4(127, 1, byte(number/250%250), byte(1+number%250)).String()}
}

// login is a whole visit of a good client.
func login(g *posterntest.Proxy, listener string, number int) error {
	c, err := caller(number).Login(g, listener, "anna", "secret")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Do("NOOP"); err != nil {
		return err
	}
	if strings.HasPrefix(listener, "pop3") {
		return c.Do("QUIT")
	}
	return c.Do("LOGOUT")
}

// crowd runs f for every number below n, on so many goroutines.
func crowd(t *testing.T, n, workers int, f func(number int) error) {
	t.Helper()
	numbers := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for number := range numbers {
				if err := f(number); err != nil {
					t.Errorf("client %d: %v", number, err)
				}
			}
		})
	}
	for number := range n {
		numbers <- number
	}
	close(numbers)
	all.Wait()
}
