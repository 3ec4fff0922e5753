// Mutation plants named defects in the product, one at a time, and shows that
// the tests see each of them. The working tree is never touched: a planted
// file reaches the compiler through -overlay.
//
// test/mutants runs it from anywhere. Each defect ends as one of
//
//	caught            its test fails with it, and passes without it
//	SURVIVED          its test passes with it: a test is missing
//	stale             the code to change is not there any more, or not once
//	does not compile  the defect is no program
//	no baseline       its test fails, or runs nothing, without it too
//	did not run       its test ended in no way that a test ends
//
// The exit code is 0 only where all are caught.
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
	list := flag.Bool("list", false, "print the defects and leave")
	match := flag.String("run", "", "plant only the defects whose name matches this `regexp`")
	portion := flag.String("part", "", "plant only one part of the defects, as in `1/4`: every fourth from the second on")
	verbose := flag.Bool("v", false, "print what each test said")
	workers := flag.Int("parallel", 2*runtime.NumCPU(), "how many defects are tried at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, options{list: *list, match: *match, part: *portion, verbose: *verbose, workers: max(1, *workers)})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

type options struct {
	list, verbose bool
	match, part   string
	workers       int
}

func run(ctx context.Context, o options) error {
	wanted, err := regexp.Compile(o.match)
	if err != nil {
		return fmt.Errorf("reading -run: %w", err)
	}
	var chosen []mutant
	for _, m := range all() {
		if wanted.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	every := len(chosen)
	if chosen, err = part(chosen, o.part); err != nil {
		return err
	}
	if len(chosen) < every {
		fmt.Printf("%d of %d defects, part %s; without -part all are tried\n", len(chosen), every, o.part)
	}
	if o.list {
		for _, m := range chosen {
			fmt.Printf("%s\n    %s, seen by %s\n", m.name, m.file, m.seen)
		}
		return nil
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no defect matches %q; -list names them", o.match)
	}
	l, err := newLab(ctx, o.workers)
	if err != nil {
		return err
	}
	defer l.close()
	return try(ctx, l, chosen, o.verbose)
}

// part takes every n-th defect from the k-th on, for k/n; all for an empty text.
func part(all []mutant, text string) ([]mutant, error) {
	if text == "" {
		return all, nil
	}
	var k, n int
	if _, err := fmt.Sscanf(text, "%d/%d", &k, &n); err != nil || n < 1 || k < 0 || k >= n {
		return nil, fmt.Errorf("reading -part: %q is not k/n with k from 0 to n-1", text)
	}
	var chosen []mutant
	for i := k; i < len(all); i += n {
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// try plants the chosen defects and tells of each.
func try(ctx context.Context, l *lab, chosen []mutant, verbose bool) error {
	begun := time.Now()
	l.baselines(ctx, chosen)
	caught := 0
	for i, result := range l.tryAll(ctx, chosen) {
		r := <-result
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted after %d mutants", i)
		}
		fmt.Printf("%-16s %5.1fs  %s\n", r.status, r.took.Seconds(), chosen[i].name)
		if r.status == isCaught {
			caught++
		}
		if r.detail != "" && (verbose || r.status != isCaught) {
			fmt.Print(indent(r.detail))
		}
	}
	fmt.Printf("%d mutants, %d caught (%.0fs)\n", len(chosen), caught, time.Since(begun).Seconds())
	if caught < len(chosen) {
		return fmt.Errorf("%d not caught", len(chosen)-caught)
	}
	return nil
}
