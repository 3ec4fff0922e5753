package demo

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// zeros is a line that goes on and on.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}

func TestAnEndlessLineCostsNoMemory(t *testing.T) {
	const size = 32 << 20
	in := &tape{in: io.MultiReader(io.LimitReader(zeros{}, size), bytes.NewReader([]byte("\r\nQUIT\r\n")))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	newPOP3(in, nil).run()
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<20 {
		t.Errorf("%d bytes allocated for a line of %d", spent, size)
	}
	want := "+OK Postern demo mailbox ready\r\n-ERR line too long\r\n+OK goodbye\r\n"
	if got := in.out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSilenceEndsThePOP3SessionAndDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drops := smallDrops()
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			newPOP3(server, drops).run()
		}()
		begin := time.Now()
		go io.WriteString(client, "USER anna\r\nPASS de mo\r\nDELE 1\r\nhalf a li")
		out, err := io.ReadAll(client)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(out, []byte("+OK")) != 4 || bytes.Contains(out, []byte("-ERR")) {
			t.Errorf("it said %q", out)
		}
		if waited := time.Since(begin); waited != pop3ReadTimeout {
			t.Errorf("ended after %v, want %v", waited, pop3ReadTimeout)
		}
		if n := len(drops["anna"].messages); n != 3 {
			t.Errorf("%d messages left, want all 3", n)
		}
	})
}

func TestAClientThatDripsALineIsTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			newPOP3(server, nil).run()
		}()
		begin := time.Now()
		bufio.NewReader(client).ReadString('\n')
		var err error
		for err == nil {
			time.Sleep(time.Minute)
			_, err = client.Write([]byte("x"))
		}
		if waited := time.Since(begin); waited > pop3ReadTimeout+time.Minute {
			t.Errorf("ended after %v, want %v", waited, pop3ReadTimeout)
		}
	})
}

func TestAClientThatNeverReadsIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		begin := time.Now()
		newPOP3(server, nil).run()
		server.Close()
		if waited := time.Since(begin); waited != pop3WriteTimeout {
			t.Errorf("ended after %v, want %v", waited, pop3WriteTimeout)
		}
	})
}

func TestHalfALineDoesNotHoldBackTheReplyBeforeIt(t *testing.T) {
	client, server := loopback(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		newPOP3(server, smallDrops()).run()
	}()
	io.WriteString(client, "USER anna\r\nPASS d")
	r := bufio.NewReader(client)
	for range 2 {
		if line, err := r.ReadString('\n'); err != nil {
			t.Fatalf("got %q, %v, want a greeting and a reply", line, err)
		}
	}
	client.Close()
	<-ended
}
