package proxy

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
)

// whenClosed does something before it tells of an end.
type whenClosed struct {
	Observer
	do func()
}

func (w whenClosed) Closed(c *Closed) {
	w.do()
	w.Observer.Closed(c)
}

// Who reads that a connection has ended finds its place free.
func TestAConnectionThatIsSaidToHaveEndedTakesNoPlace(t *testing.T) {
	addr, said := make(chan string, 1), make(chan string, 1)
	var first sync.Once
	next := func() {
		first.Do(func() {
			line := ""
			if c, err := net.Dial("tcp", <-addr); err == nil {
				defer c.Close()
				line, _ = bufio.NewReader(c).ReadString('\n')
			}
			said <- line
		})
	}
	g := startIMAP(t, func(c *Config) {
		c.Limits.Connections, c.Observer = 1, whenClosed{c.Observer, next}
	})
	addr <- g.Addr(IMAP)
	c := g.Dial(t, IMAP)
	readLine(t, c)
	c.Close()
	if line := <-said; !strings.HasPrefix(line, "* OK ") {
		t.Errorf("the next client is told %q", line)
	}
}
