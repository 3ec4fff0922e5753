package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/google/pprof/profile"

	"postern/bench/internal/measure"
	"postern/bench/internal/profiles"
	"postern/bench/internal/subject"
)

// forPGO are the measures whose profiles go into the one for profile-guided
// optimisation: what a proxy does all day.
var forPGO = []string{"session", "full13", "resume13", "bulk", "rtt", "legacylog", "storm"}

// profiler takes profiles of Postern and keeps them by measure.
type profiler struct {
	dir       string
	byMeasure map[string][]*profile.Profile
}

func newProfiler(dir string) *profiler {
	return &profiler{dir: dir, byMeasure: map[string][]*profile.Profile{}}
}

// around takes a CPU profile while a measure runs; with several rounds the file
// holds all of them.
func (p *profiler) around(m *measure.Measure, in *subject.Instance, run func() error) error {
	cpu := profiles.StartCPU(admin(in))
	err := run()
	taken, errProfile := cpu.Stop()
	if err != nil {
		return err
	}
	if errProfile != nil {
		return fmt.Errorf("profiling: %w", errProfile)
	}
	p.byMeasure[m.Name] = append(p.byMeasure[m.Name], taken)
	all, err := profiles.Merge(p.byMeasure[m.Name])
	if err != nil {
		return err
	}
	return profiles.Write(all, filepath.Join(p.dir, m.Name+".pprof"))
}

// snapshot writes heap and goroutines where idle holds most sessions.
func (p *profiler) snapshot(in *subject.Instance) error {
	if in.Subject != subject.Postern {
		return nil
	}
	return profiles.Snapshot(admin(in), filepath.Join(p.dir, "idle"))
}

// merge writes the profile for profile-guided optimisation.
func (p *profiler) merge(path string) error {
	var all []*profile.Profile
	for name, ps := range p.byMeasure {
		if slices.Contains(forPGO, name) {
			all = append(all, ps...)
		}
	}
	merged, err := profiles.Merge(all)
	if err != nil {
		return fmt.Errorf("merging: %w", err)
	}
	return profiles.Write(merged, path)
}

// admin is the address of Postern's admin port.
func admin(in *subject.Instance) string { return fmt.Sprintf("127.0.0.1:%d", in.Admin) }
