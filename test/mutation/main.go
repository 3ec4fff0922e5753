// Command mutation breaks the promises of the product, one at a time, and
// shows that a test sees each breach.
//
// A mutant names a function, a place in its syntax, and what to do there, so
// that it survives a renamed variable, a move to another file and new words.
// All mutants are compiled in at once, through -overlay, each behind a
// condition: the working tree is not touched, and a package is built once, not
// once a mutant. The environment variable MUTANT chooses the one that is alive.
//
// The exit code is 0 only where every mutant is caught: its test passes
// without it and fails with it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

func main() {
	match := flag.String("run", "", "only the mutants whose description or function matches this `regexp`")
	verbose := flag.Bool("v", false, "print what each test said")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *match, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, match string, verbose bool) error {
	wanted, err := regexp.Compile(match)
	if err != nil {
		return fmt.Errorf("reading -run: %w", err)
	}
	var chosen []mutant
	for _, m := range mutants {
		if wanted.MatchString(m.breaks) || wanted.MatchString(m.in) {
			chosen = append(chosen, m)
		}
	}
	l, err := newLab(ctx, chosen)
	if err != nil {
		return err
	}
	defer l.close()
	begun := time.Now()
	if err := l.build(ctx); err != nil {
		return err
	}
	fmt.Printf("%d mutants are compiled in (%.0fs)\n", len(chosen), time.Since(begun).Seconds())
	caught := 0
	for i, pending := range l.tryAll(ctx, runtime.NumCPU()) {
		r := <-pending
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted after %d mutants", i)
		}
		if r.caught {
			caught++
		}
		fmt.Printf("%-9s %5.1fs  %s: %s\n", r.word(), r.took.Seconds(), chosen[i].in, chosen[i].breaks)
		if verbose || !r.caught {
			fmt.Println(r.detail)
		}
	}
	fmt.Printf("%d mutants, %d caught (%.0fs)\n", len(chosen), caught, time.Since(begun).Seconds())
	if caught < len(chosen) {
		return fmt.Errorf("%d not caught", len(chosen)-caught)
	}
	return nil
}
