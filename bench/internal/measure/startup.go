package measure

import (
	"slices"
	"time"

	"postern/bench/internal/proc"
	"postern/bench/internal/subject"
)

// starts is how often a subject is started in one round.
const starts = 5

// startup starts the subject several times and takes the fastest; memory is
// that of the first, which has seen one handshake.
var startup = &Measure{
	Name: "startup", Title: "Start to the first handshake (fastest of 5 starts); memory when empty", Group: Fresh, Seconds: 3,
	Columns: []Column{
		{Key: "ms", Title: "ms to serve", Format: "%.1f", Ratio: true},
		{Key: "ms_median", Title: "median ms", Format: "%.1f"},
		{Key: "pss_mb", Title: "PSS MB", Format: "%.1f", Ratio: true},
		{Key: "rss_mb", Title: "RSS MB", Format: "%.1f"},
		{Key: "processes", Title: "processes", Format: "%.0f"},
		{Key: "threads", Title: "threads", Format: "%.0f"},
	},
	Run: func(e *Env, in *subject.Instance, v Values, n Notes) error {
		time.Sleep(500 * time.Millisecond)
		m := proc.Memory(in.Roots)
		v["pss_mb"], v["rss_mb"] = mb(m.PSS), mb(m.RSS)
		v["processes"] = float64(len(proc.PIDs(in.Roots)))
		v["threads"] = float64(proc.Threads(in.Roots))
		took := []float64{v["ms"]}
		for range starts - 1 {
			again, t, err := Start(e, in.Subject, Fresh)
			if err != nil {
				return err
			}
			again.Stop()
			took = append(took, millis(t))
		}
		slices.Sort(took)
		v["ms"], v["ms_median"] = took[0], took[len(took)/2]
		return nil
	},
}

// mb makes MB of 1,000,000 bytes of KB of 1,024.
func mb(kb int64) float64 { return float64(kb) * 1024 / 1e6 }

// millis is a duration in milliseconds.
func millis(d time.Duration) float64 { return d.Seconds() * 1000 }
