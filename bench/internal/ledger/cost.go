package ledger

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"postern/bench/internal/measure"
	"postern/bench/internal/report"
)

// Costs runs the benchmarks of recording and writing in the source of each side,
// by turns. Without a source of the older side there is nothing to compare with.
func Costs(ctx context.Context, o *Options, source, oldSource string) ([]report.Record, error) {
	var records []report.Record
	programs := map[string]string{}
	for name, dir := range map[string]string{o.New.Name: source, o.Old.Name: oldSource} {
		if dir == "" {
			continue
		}
		programs[name] = filepath.Join(o.Dir, name+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-o", programs[name], "./internal/ledger")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building the benchmarks in %s: %w\n%s", dir, err, out)
		}
	}
	for round := 1; round <= o.Rounds; round++ {
		for _, name := range []string{o.Old.Name, o.New.Name} {
			if programs[name] == "" {
				continue
			}
			dir := source
			if name == o.Old.Name {
				dir = oldSource
			}
			record := report.Record{Round: round, Subject: name, Measure: "cost", Values: measure.Values{}}
			if err := benchmarks(ctx, programs[name], filepath.Join(dir, "internal", "ledger"), record.Values); err != nil {
				record.Error = err.Error()
			}
			records = append(records, record)
			o.Log("cost: %s round %d of %d", name, round, o.Rounds)
		}
	}
	return records, nil
}

// benchmarks runs those of recording for a second, and those of batches, of which
// one takes as long, three times each.
func benchmarks(ctx context.Context, program, dir string, v measure.Values) error {
	for _, run := range [][2]string{{"^BenchmarkRecord", "1s"}, {"^BenchmarkFlush$/^(memory|sqlite)$", "3x"}} {
		cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench="+run[0], "-test.benchtime="+run[1])
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%.2000s", err, out)
		}
		readBenchmarks(strings.NewReader(string(out)), v)
	}
	return nil
}

var processors = regexp.MustCompile(`-\d+$`)

// readBenchmarks reads lines of "BenchmarkX-2  100  12.3 ns/op  0 allocs/op".
func readBenchmarks(r io.Reader, v measure.Values) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			key := map[string]string{"ns/op": "_ns", "allocs/op": "_allocs", "µs-CPU/row": "_cpu"}[fields[i+1]]
			if err == nil && key != "" {
				v[name+key] = value
			}
		}
	}
}
