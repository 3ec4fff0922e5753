package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ReadFile reads the figures of a run.
func ReadFile(path string) (*Run, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	run := new(Run)
	if err := json.Unmarshal(b, run); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return run, nil
}

// WriteFile writes the figures as JSON with a line for each record, into a
// directory that it makes if need be.
func (r *Run) WriteFile(path string) error {
	head := *r
	head.Records = nil
	b, err := json.MarshalIndent(head, "", " ")
	if err != nil {
		return err
	}
	if len(r.Records) > 0 {
		b = append(bytes.TrimSuffix(b, []byte("\n}")), ",\n \"Records\": ["...)
		for i, rec := range r.Records {
			line, err := json.Marshal(rec)
			if err != nil {
				return err
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, "\n  "...), line...)
		}
		b = append(b, "\n ]\n}"...)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
