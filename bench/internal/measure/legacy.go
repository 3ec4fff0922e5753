package measure

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"postern/bench/internal/client"
	"postern/bench/internal/subject"
)

// legacyColumns are those of all measures of refusals.
var legacyColumns = []Column{
	{Key: "cpu_us", Title: "CPU µs/rejection", Format: "%.1f", Ratio: true},
	{Key: "per_s", Title: "rejections/s", Format: "%.0f", Higher: true},
}

// legacy has old clients rejected.
var legacy = &Measure{
	Name: "legacy", Title: "A TLS 1.0 hello rejected (8 clients at 8 addresses); the peers log nothing", Columns: legacyColumns, Seconds: 3,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		for _, l := range client.Legacies() {
			answer, err := client.Refused(imaps(in), src(0), l.Bytes)
			s := fmt.Sprintf("%x", answer)
			if text := strings.TrimSpace(string(answer)); strings.HasPrefix(text, "*") {
				s = fmt.Sprintf("%q", text)
			}
			switch {
			case err != nil && strings.Contains(err.Error(), "reset"):
				s += " RST"
			case err != nil:
				s += " " + err.Error()
			default:
				s += " FIN"
			}
			n["answer to "+l.Name] = strings.TrimSpace(s)
		}
		return rejections(e, in, src, v)
	},
}

// legacyLogged is the same with the log on, and quotes it. Of 20 lines a
// minute from one address Postern makes one that counts the rest.
var legacyLogged = &Measure{
	Name: "legacylog", Title: "A TLS 1.0 hello rejected, logged and counted (8 clients at 8 addresses)", Group: Logged, Columns: legacyColumns, Seconds: 3,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		fi, err := os.Stat(in.Log)
		if err != nil {
			return err
		}
		client.Refused(imaps(in), src(0), client.Legacies()[0].Bytes)
		time.Sleep(300 * time.Millisecond)
		b, err := os.ReadFile(in.Log)
		if err != nil {
			return err
		}
		n["log"] = strings.TrimSpace(string(b[min(int64(len(b)), fi.Size()):]))
		return rejections(e, in, src, v)
	},
}

// legacyMany has every hello come from another of 4,096 addresses, so that
// hardly any line falls to a limit for one client.
var legacyMany = &Measure{
	Name: "legacymany", Title: "The same from 4,096 addresses in turn", Group: Logged, Columns: legacyColumns, Seconds: 3,
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		var next atomic.Int64
		return rejections(e, in, func(int) net.IP { return client.Source(0x1000 + int(next.Add(1)%4096)) }, v)
	},
}

// imaps is the address of the subject's IMAPS port.
func imaps(in *subject.Instance) string { return fmt.Sprintf("127.0.0.1:%d", in.IMAPS) }

// rejections is the closed loop of all the measures of refusals; worker w
// calls from the address that from names.
func rejections(e *Env, in *subject.Instance, from func(w int) net.IP, v Values) error {
	flight := client.Legacies()[0].Bytes
	one := func(w int) error {
		answer, err := client.Refused(imaps(in), from(w), flight)
		if len(answer) > 0 {
			err = nil // alert seen; a reset after it is fine
		}
		return err
	}
	var done int64
	var first error
	cpu, wall := cost(in, v, func() { done, _, first = closedLoop(8, e.span(2*time.Second), 60000, one) })
	if done == 0 {
		return first
	}
	v["cpu_us"] = float64(cpu.Nanoseconds()) / 1e3 / float64(done)
	v["per_s"] = float64(done) / wall.Seconds()
	return nil
}
