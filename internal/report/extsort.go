package report

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
)

// sortBudget is how many bytes of records a sorter keeps in memory.
const sortBudget = 4 << 20

// scratch is a private file for what does not fit into memory, made at the first
// write. It has no name, so that nothing is left behind however a process ends.
type scratch struct {
	dir  string // empty is os.TempDir
	file *os.File
	end  int64
}

// run is a part of the file with sorted records, each behind its length.
type run struct{ from, to int64 }

func (s *scratch) write(records source) (r run, err error) {
	if s.file == nil {
		if s.file, err = os.CreateTemp(s.dir, ".postern-report-"); err != nil && s.dir != "" { // as of a reader that may not write there
			s.file, err = os.CreateTemp("", ".postern-report-")
		}
		if err == nil {
			err = os.Remove(s.file.Name())
		}
		if err != nil {
			return r, fmt.Errorf("making a file to sort in: %w", err)
		}
	}
	r.from = s.end
	w := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.end), 256<<10)
	var length [binary.MaxVarintLen32]byte
	for record, _ := records(); record != nil; record, _ = records() {
		n, _ := w.Write(length[:binary.PutUvarint(length[:], uint64(len(record)))]) // errors stay until Flush
		_, _ = w.Write(record)
		s.end += int64(n + len(record))
	}
	if err := w.Flush(); err != nil {
		return r, fmt.Errorf("writing a file to sort in: %w", err)
	}
	r.to = s.end
	return r, nil
}

func (s *scratch) close() {
	if s.file != nil {
		_ = s.file.Close() // nobody reads it again
	}
}

// source yields records, each valid until the next one, and nil at the end.
type source func() ([]byte, error)

// sorter sorts records as bytes. Those that do not fit into its budget are sorted
// by parts, written to the scratch file, and merged.
type sorter struct {
	scratch *scratch
	budget  int
	records []byte
	spots   []spot
	runs    []run
}

// spot is where a record is. Most are told apart by their first bytes.
type spot struct {
	first    uint64
	from, to uint32
}

func (s *sorter) add(record []byte) error {
	if used := len(s.records) + 16*len(s.spots); used > 0 && used+len(record)+16 > s.budget {
		if err := s.spill(); err != nil {
			return err
		}
	}
	var first [8]byte
	copy(first[:], record)
	from := len(s.records)
	s.records = append(s.records, record...)
	s.spots = append(s.spots, spot{binary.BigEndian.Uint64(first[:]), uint32(from), uint32(len(s.records))})
	return nil
}

func (s *sorter) spill() error {
	r, err := s.scratch.write(s.inMemory())
	s.runs = append(s.runs, r)
	s.records, s.spots = s.records[:0], s.spots[:0]
	return err
}

// inMemory sorts what is in memory.
func (s *sorter) inMemory() source {
	slices.SortFunc(s.spots, func(a, b spot) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return bytes.Compare(s.records[a.from:a.to], s.records[b.from:b.to])
	})
	at := 0
	return func() ([]byte, error) {
		if at == len(s.spots) {
			return nil, nil
		}
		p := s.spots[at]
		at++
		return s.records[p.from:p.to], nil
	}
}

// sorted returns all records in order. Nothing may be added any more.
func (s *sorter) sorted() (source, error) {
	if len(s.runs) == 0 {
		return s.inMemory(), nil
	}
	if len(s.spots) > 0 {
		if err := s.spill(); err != nil {
			return nil, err
		}
	}
	s.records, s.spots = nil, nil
	var heads []*head // in order
	buffer := max(s.budget/len(s.runs), 4<<10)
	for _, r := range s.runs {
		part := io.NewSectionReader(s.scratch.file, r.from, r.to-r.from)
		h := &head{in: bufio.NewReaderSize(part, min(buffer, 256<<10))}
		if err := h.read(); err != nil {
			return nil, err
		}
		heads = append(heads, h)
	}
	slices.SortFunc(heads, func(a, b *head) int { return bytes.Compare(a.record, b.record) })
	begun := false
	return func() ([]byte, error) {
		if begun { // the record before is not needed any more
			first := heads[0]
			if err := first.read(); err != nil {
				return nil, err
			}
			heads = slices.Delete(heads, 0, 1)
			if first.record != nil {
				at, _ := slices.BinarySearchFunc(heads, first.record, func(h *head, record []byte) int { return bytes.Compare(h.record, record) })
				heads = slices.Insert(heads, at, first)
			}
		}
		begun = true
		if len(heads) == 0 {
			return nil, nil
		}
		return heads[0].record, nil
	}, nil
}

// head is the next record of a run; nil at its end.
type head struct {
	in             *bufio.Reader
	buffer, record []byte
}

func (h *head) read() error {
	n, err := binary.ReadUvarint(h.in)
	if err == io.EOF {
		h.record = nil
		return nil
	}
	if err == nil {
		h.buffer = slices.Grow(h.buffer[:0], int(n))
		h.record = h.buffer[:n]
		_, err = io.ReadFull(h.in, h.record)
	}
	if err != nil {
		return fmt.Errorf("reading a sorted file: %w", err)
	}
	return nil
}
