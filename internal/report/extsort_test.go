package report

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

func TestRecordsThatDoNotFitAreSortedOnDisk(t *testing.T) {
	for _, n := range []int{0, 1, 20, 5000} {
		dir := t.TempDir()
		s := &scratch{dir: dir}
		sorter := &sorter{scratch: s, budget: 4 << 10}
		var want []string
		random := rand.New(rand.NewPCG(7, uint64(n)))
		for i := range n {
			record := fmt.Sprintf("%0*d", 1+random.IntN(30), random.IntN(1+i))
			want = append(want, record)
			sorter.add([]byte(record))
		}
		slices.Sort(want)
		var got []string
		for record := range sorter.sorted() {
			got = append(got, string(record))
		}
		if s.err != nil {
			t.Fatal(s.err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d records came out as %d, or in another order", n, len(got))
		}
		if spilled := len(sorter.runs) > 1; spilled != (n == 5000) {
			t.Errorf("%d records: %d runs", n, len(sorter.runs))
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("a file has a name: %v, %v", left, err)
		}
		s.close()
	}
}

func TestARecordLongerThanTheBudget(t *testing.T) {
	s := &sorter{scratch: &scratch{dir: "/nonexistent"}, budget: 100}
	defer s.scratch.close()
	for _, record := range []string{"b", string(make([]byte, 500)), "a"} {
		s.add([]byte(record))
	}
	for first := range s.sorted() {
		if s.scratch.err != nil || len(first) != 500 {
			t.Errorf("%d bytes, %v", len(first), s.scratch.err)
		}
		return
	}
	t.Error("nothing came out")
}

func TestADiskThatCannotBeWrittenEndsASort(t *testing.T) {
	t.Setenv("TMPDIR", "/nonexistent")
	s := &sorter{scratch: &scratch{dir: "/nonexistent/either"}, budget: 100}
	for n := range 100 {
		s.add(fmt.Append(nil, n))
	}
	for record := range s.sorted() {
		t.Errorf("%q came out", record)
	}
	if s.scratch.err == nil {
		t.Error("no error")
	}
}

// Of a list that is bounded, the first records are kept in memory alone.
func TestTheFirstRecordsOfMany(t *testing.T) {
	s := &sorter{scratch: &scratch{dir: "/nonexistent"}, most: 3}
	for n := range 100 {
		s.add(fmt.Appendf(nil, "%02d", (n*37+50)%100))
	}
	if string(s.worst) > "05" || len(s.spots) > 6 {
		t.Errorf("%d are kept up to %q", len(s.spots), s.worst)
	}
	for _, want := range []string{"00", "01", "02"} {
		for record := range s.sorted() {
			if string(record) >= want {
				if string(record) != want {
					t.Errorf("%s is not among them", want)
				}
				break
			}
		}
	}
}
