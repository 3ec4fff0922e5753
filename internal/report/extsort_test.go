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
			if err := sorter.add([]byte(record)); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		sorted, err := sorter.sorted()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			record, err := sorted()
			if err != nil {
				t.Fatal(err)
			}
			if record == nil {
				break
			}
			got = append(got, string(record))
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
		if err := s.add([]byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	sorted, err := s.sorted()
	if err != nil {
		t.Fatal(err)
	}
	if first, err := sorted(); err != nil || len(first) != 500 {
		t.Errorf("%d bytes, %v", len(first), err)
	}
}
