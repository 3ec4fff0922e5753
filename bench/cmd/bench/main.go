// Command bench measures Postern and other TLS-terminating mail proxies side by
// side and writes the report. bench/run builds what it needs and starts it; its
// README says how to use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"postern/bench/internal/measure"
	"postern/bench/internal/stub"
	"postern/bench/internal/subject"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	quiet := context.AfterFunc(ctx, func() { fmt.Fprintln(os.Stderr, "ending after this measure") })
	defer quiet()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "stub": // the harness starts these two itself
		err = stub.Main()
	case len(os.Args) > 1 && os.Args[1] == "naive":
		err = subject.NaiveMain(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "ledger":
		err = benchLedger(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "handover":
		err = benchHandover(ctx, os.Args[2:])
	default:
		err = bench(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	subjects []*subject.Subject
	measures []*measure.Measure
	partial  bool // not all subjects or not all measures
	steps    []int

	repeat, idleRepeat int
	quick              bool
	scratch            string
	docs, findings     string
	json, md           string
	render             bool
	profile, pgo       string
	old                string
}

// parse reads the command line.
func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	subjects := fs.String("subjects", "", "comma-separated; default: all that are installed")
	measures := fs.String("measures", "", "comma-separated; default: all")
	steps := fs.String("idle", "", "sessions that idle holds, ascending (default 100,1000,5000, or 1000 with -quick)")
	fs.IntVar(&o.repeat, "repeat", 0, "rounds (default 5, or 1 with -quick)")
	fs.IntVar(&o.idleRepeat, "idle-repeat", 0, "rounds that include idle and used, which take longest (default: all)")
	fs.BoolVar(&o.quick, "quick", false, "short measures, one round, nothing written into -docs: a few minutes")
	fs.StringVar(&o.scratch, "dir", "", "scratch directory (default: a temporary one)")
	fs.StringVar(&o.docs, "docs", "", "where performance.md, performance.json and the plots go after a whole run")
	fs.StringVar(&o.findings, "findings", "findings.md", "prose that stands in the report word for word")
	fs.StringVar(&o.json, "json", "", "where the raw figures go, besides")
	fs.StringVar(&o.md, "md", "", "where the report goes, besides; default for a run that is not a whole one: stdout")
	fs.BoolVar(&o.render, "render", false, "measure nothing; make report and plots again from performance.json in -docs")
	fs.StringVar(&o.profile, "profile", "", "directory for profiles of Postern, a CPU profile for each measure")
	fs.StringVar(&o.pgo, "pgo", "", "file for the CPU profiles merged, for profile-guided optimisation; with -profile")
	fs.StringVar(&o.old, "old", "", "another Postern `binary`, measured by turns as postern-old; prints the ratios of Postern's figures to its alone")
	fs.Parse(args)
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unknown: %s", strings.Join(fs.Args(), " "))
	}
	if o.pgo != "" && o.profile == "" {
		return o, errors.New("-pgo needs -profile")
	}
	if o.repeat == 0 {
		o.repeat = 5
		if o.quick {
			o.repeat = 1
		}
	}
	if o.idleRepeat == 0 {
		o.idleRepeat = o.repeat
	}
	if *steps == "" {
		*steps = "100,1000,5000"
		if o.quick {
			*steps = "1000"
		}
	}
	for f := range strings.SplitSeq(*steps, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 || len(o.steps) > 0 && n <= o.steps[len(o.steps)-1] {
			return o, fmt.Errorf("-idle: %q", *steps)
		}
		o.steps = append(o.steps, n)
	}
	var err error
	if o.subjects, err = pick(subject.All(), *subjects, func(s *subject.Subject) string { return s.Name }); err != nil {
		return o, err
	}
	if o.measures, err = pick(measure.All(), *measures, func(m *measure.Measure) string { return m.Name }); err != nil {
		return o, err
	}
	if o.old != "" {
		if o.old, err = filepath.Abs(o.old); err != nil {
			return o, err
		}
		o.subjects = append(slices.Clone(o.subjects), subject.OldPostern(o.old))
	}
	o.partial = *subjects != "" || *measures != "" || o.old != ""
	return o, nil
}

// whole tells whether the run is one that the documentation can be made from.
func (o options) whole() bool {
	return o.docs != "" && !o.quick && !o.partial && o.profile == ""
}

// pick selects by name, in the order of all.
func pick[T any](all []T, list string, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	want := strings.Split(list, ",")
	var out []T
	for _, x := range all {
		if i := slices.Index(want, name(x)); i >= 0 {
			out = append(out, x)
			want = slices.Delete(want, i, i+1)
		}
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("unknown: %s", strings.Join(want, ", "))
	}
	return out, nil
}

// bench measures and writes.
func bench(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.render {
		return render(o)
	}
	if o.scratch == "" {
		if o.scratch, err = os.MkdirTemp("", "postern-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.scratch)
		// Dovecot's login processes are not root.
		if err := os.Chmod(o.scratch, 0o755); err != nil {
			return err
		}
	}
	if o.scratch, err = filepath.Abs(o.scratch); err != nil {
		return err
	}
	run, err := measureAll(ctx, o)
	if err != nil {
		return err
	}
	return write(o, run, ctx.Err() == nil)
}
