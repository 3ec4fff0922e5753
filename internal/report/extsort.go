package report

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
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
	// err is the first error, behind which nothing is written and what is read ends.
	err error
}

func (s *scratch) fail(doing string, err error) {
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("%s: %w", doing, err)
	}
}

// run is a part of the file with sorted records, each behind its length.
type run struct{ from, to int64 }

func (s *scratch) write(records iter.Seq[[]byte]) (r run) {
	if s.file == nil {
		var err error
		if s.file, err = os.CreateTemp(s.dir, ".postern-report-"); err != nil && s.dir != "" { // as of a reader that may not write there
			s.file, err = os.CreateTemp("", ".postern-report-")
		}
		if err == nil {
			err = os.Remove(s.file.Name())
		}
		s.fail("making a file to sort in", err)
	}
	if s.err != nil {
		return r
	}
	r.from = s.end
	w := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.end), 256<<10)
	var length [binary.MaxVarintLen32]byte
	for record := range records {
		n, _ := w.Write(length[:binary.PutUvarint(length[:], uint64(len(record)))]) // errors stay until Flush
		_, _ = w.Write(record)
		s.end += int64(n + len(record))
	}
	s.fail("writing a file to sort in", w.Flush())
	r.to = s.end
	return r
}

func (s *scratch) close() {
	if s.file != nil {
		_ = s.file.Close() // nobody reads it again
	}
}

// sorter sorts records as bytes. Those that do not fit into its budget are sorted
// by parts, written to the scratch file, and merged.
type sorter struct {
	scratch *scratch
	budget  int
	records []byte
	spots   []spot
	runs    []run
	// most is how many records are wanted, the first ones; 0 for all. There is none
	// behind worst among them.
	most  int
	worst []byte
}

// spot is where a record is. Most are told apart by their first bytes.
type spot struct {
	first    uint64
	from, to uint32
}

func (s *sorter) add(record []byte) {
	used := len(s.records) + 16*len(s.spots)
	switch {
	case s.most > 0 && len(s.spots) == 2*s.most:
		s.cut()
	case s.most == 0 && used > 0 && used+len(record)+16 > s.budget:
		s.spill()
	}
	var first [8]byte
	copy(first[:], record)
	from := len(s.records)
	s.records = append(s.records, record...)
	s.spots = append(s.spots, spot{binary.BigEndian.Uint64(first[:]), uint32(from), uint32(len(s.records))})
}

func (s *sorter) spill() {
	s.runs = append(s.runs, s.scratch.write(s.inMemory()))
	s.records, s.spots = s.records[:0], s.spots[:0]
}

// cut drops the records that are not wanted.
func (s *sorter) cut() {
	first := &sorter{scratch: s.scratch, most: s.most}
	for record := range s.inMemory() {
		if len(first.spots) == s.most {
			break
		}
		first.add(record)
		first.worst = record
	}
	*s = *first
}

// inMemory sorts what is in memory, and yields it.
func (s *sorter) inMemory() iter.Seq[[]byte] {
	slices.SortFunc(s.spots, func(a, b spot) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return bytes.Compare(s.records[a.from:a.to], s.records[b.from:b.to])
	})
	return func(yield func([]byte) bool) {
		for _, p := range s.spots {
			if !yield(s.records[p.from:p.to]) {
				return
			}
		}
	}
}

// sorted yields all records in order, each valid until the next one. Nothing may be
// added any more.
func (s *sorter) sorted() iter.Seq[[]byte] {
	if len(s.runs) == 0 {
		return s.inMemory()
	}
	if len(s.spots) > 0 {
		s.spill()
	}
	s.records, s.spots = nil, nil
	var heads []*head // in order
	buffer := max(s.budget/len(s.runs), 4<<10)
	for _, r := range s.runs {
		part := io.NewSectionReader(s.scratch.file, r.from, r.to-r.from)
		h := &head{in: bufio.NewReaderSize(part, min(buffer, 256<<10))}
		h.read(s.scratch)
		heads = append(heads, h)
	}
	slices.SortFunc(heads, func(a, b *head) int { return bytes.Compare(a.record, b.record) })
	return func(yield func([]byte) bool) {
		for len(heads) > 0 && heads[0].record != nil && yield(heads[0].record) {
			first := heads[0]
			first.read(s.scratch)
			heads = slices.Delete(heads, 0, 1)
			if first.record != nil {
				at, _ := slices.BinarySearchFunc(heads, first.record, func(h *head, record []byte) int { return bytes.Compare(h.record, record) })
				heads = slices.Insert(heads, at, first)
			}
		}
	}
}

// head is the next record of a run; nil at its end, and behind an error.
type head struct {
	in             *bufio.Reader
	buffer, record []byte
}

func (h *head) read(s *scratch) {
	h.record = nil
	n, err := binary.ReadUvarint(h.in)
	if err == io.EOF {
		return
	}
	if err == nil {
		h.buffer = slices.Grow(h.buffer[:0], int(n))[:n]
		_, err = io.ReadFull(h.in, h.buffer)
	}
	if s.fail("reading a sorted file", err); err == nil {
		h.record = h.buffer
	}
}
