package gate

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/handover"
	"postern/internal/hello"
	"postern/internal/posterntest"
	"postern/proxy"
)

const (
	// ledgerShare is what the ledger may add to the CPU time of a refusal.
	ledgerShare = 1.10
	rounds      = 10
	refusals    = 5000
	// oldClients is from how many addresses they come.
	oldClients = 300
	knockers   = 4
)

// measured says to this test's program that it is a proxy, and whether its
// ledger is told anything.
const measured = "MEASURED_PROXY"

func TestMain(m *testing.M) {
	if kind := os.Getenv(measured); kind != "" {
		if err := serveMeasured(kind == withLedger); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	withLedger    = "with the ledger"
	withoutLedger = "without it"
)

// serveMeasured is the proxy of `postern serve` without its log. It
// writes where imaps listens and then, for each line that it reads, the CPU
// time of the process so far.
func serveMeasured(ledger bool) error {
	cfg, err := config.Load(os.Environ())
	if err != nil {
		return err
	}
	g, err := New(cfg, Build{}, handover.Given{}, io.Discard, time.Now)
	if err != nil {
		return err
	}
	// The same server again, which tells the ledger or does not.
	pc := g.proxyConfig()
	pc.Policy, pc.Now = g.policy.Load().Policy, time.Now
	if !ledger {
		all := pc.Observer.(chain)
		if all[0] != proxy.Observer(g.ledger.recorder) {
			return errors.New("the ledger is not told first")
		}
		pc.Observer = all[1:]
	}
	sockets, err := listen(cfg, nil)
	if err != nil {
		return err
	}
	sockets[adminSocket][0].Close()
	pc.Listeners = mailSockets(sockets)
	if g.server, err = proxy.New(pc); err != nil {
		return err
	}
	g.Start()
	fmt.Println(pc.Listeners["imaps"][0].Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if ledger {
			// What a round owes is paid within it, beside what the proxy
			// writes in its own time.
			if err := g.ledger.recorder.Flush(context.Background()); err != nil {
				return err
			}
			g.countClients(context.Background())
		}
		before := posterntest.CPUTime()
		runtime.GC()
		fmt.Println(int64(before), int64(posterntest.CPUTime()))
	}
	return nil
}

// measuredProxy is a proxy in a process of its own.
type measuredProxy struct {
	kind, addr string
	in         io.Writer
	out        *bufio.Reader
}

func startMeasured(t *testing.T, program, kind string, environ []string) *measuredProxy {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append([]string{measured + "=" + kind}, environ...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // which ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("the proxy %s: %v", kind, err)
		}
	})
	g := &measuredProxy{kind: kind, in: in, out: bufio.NewReader(out)}
	g.addr = g.line(t)
	return g
}

func (g *measuredProxy) line(t *testing.T) string {
	t.Helper()
	line, err := g.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the proxy %s: %v", g.kind, err)
	}
	return strings.TrimSpace(line)
}

// cpu is the CPU time up to here, and that from which to count on.
func (g *measuredProxy) cpu(t *testing.T) (until, from time.Duration) {
	t.Helper()
	if _, err := io.WriteString(g.in, "\n"); err != nil {
		t.Fatal(err)
	}
	line := g.line(t)
	if _, err := fmt.Sscan(line, &until, &from); err != nil {
		t.Fatalf("the proxy %s wrote %q: %v", g.kind, line, err)
	}
	return until, from
}

// round lets so many old clients connect to each proxy in turn, so that whatever
// else the machine does meets both. It returns the CPU time that each took.
func round(t *testing.T, proxies []*measuredProxy, n int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(proxies))
	for i, g := range proxies {
		_, from := g.cpu(t)
		took[i] = -from
	}
	knock := hello.ClientHello(hello.Typical(tls.VersionTLS10))
	var all sync.WaitGroup
	for first := range knockers {
		all.Go(func() {
			for i := first; i < n; i += knockers {
				for turn := range proxies {
					g := proxies[(i/knockers+turn)%len(proxies)] // nobody is always first
					if err := refused(g.addr, i%oldClients, knock); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
	for i, g := range proxies {
		until, _ := g.cpu(t)
		took[i] += until
	}
	return took
}

// refused is an old client, which wants its alert.
func refused(addr string, number int, knock []byte) error {
	from := net.IPv4(127, 3, byte(number/250), byte(1+number%250))
	dialer := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: from}}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(knock); err != nil {
		return err
	}
	a, err := hello.ReadFlight(c)
	if err == nil && a.Kind != hello.Alert {
		err = fmt.Errorf("TLS 1.0 is answered with a %v", a.Kind)
	}
	return err
}

// It measures the whole proxy, from accept to close, in processes
// without the race detector and without the clients. The log's lines are
// suppressed, most of the time: a refusal that costs less lets the ledger less.
func TestTheLedgerAddsATenthToTheCPUTimeOfARefusalAtMost(t *testing.T) {
	program := filepath.Join(t.TempDir(), "proxy")
	build := exec.Command("go", "test", "-c", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building without the race detector: %v\n%s", err, out)
	}
	ca := posterntest.NewCA(t)
	ec := ca.Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	rsa := ca.Issue(t, posterntest.DefaultNames, posterntest.RSA)
	upstream := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	environ := []string{
		"POSTERN_UPSTREAM_IMAP=" + upstream.URL("imap"), "POSTERN_LEDGER_IDENTITY=plain",
		"POSTERN_LISTEN_IMAPS=127.0.0.1:0", "POSTERN_LISTEN_IMAP=off", "POSTERN_ADMIN_LISTEN=127.0.0.1:0",
		"POSTERN_TLS_CERT_FILE=" + ec.CertFile + "," + rsa.CertFile,
		"POSTERN_TLS_KEY_FILE=" + ec.KeyFile + "," + rsa.KeyFile,
	}
	share := 0.0
	for range 4 { // the machine may have been busy throughout one of them
		proxies := []*measuredProxy{
			startMeasured(t, program, withLedger, environ), startMeasured(t, program, withoutLedger, environ),
		}
		round(t, proxies, 21*oldClients) // what is made once, and the lines of the log
		var lowest []time.Duration
		for range rounds {
			took := round(t, proxies, refusals)
			t.Logf("%v %s, %v %s", took[0]/refusals, withLedger, took[1]/refusals, withoutLedger)
			if lowest == nil {
				lowest = took
			}
			lowest[0], lowest[1] = min(lowest[0], took[0]), min(lowest[1], took[1])
		}
		share = float64(lowest[0]) / float64(lowest[1])
		t.Logf("the lowest of %d: %v %s, %v %s, which is %.3f times as much", rounds,
			lowest[0]/refusals, withLedger, lowest[1]/refusals, withoutLedger, share)
		if share <= ledgerShare {
			return
		}
	}
	t.Errorf("with the ledger a refusal takes %.3f times the CPU time, more than %.2f", share, ledgerShare)
}
