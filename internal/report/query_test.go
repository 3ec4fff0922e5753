package report

import (
	"reflect"
	"testing"
	"time"
)

func TestOptionsGoThroughAQuery(t *testing.T) {
	for _, want := range []Query{
		{Options{Since: time.Second}, Style{Format: JSON, Top: DefaultTop}},
		{Options{Since: fortnight, By: BySoftware, Noise: true, Max: 12, MaxUnknown: 3, Mail: true}, Style{Format: CSV, Top: DefaultTop, Mail: true}},
		{Options{Since: fortnight}, Style{Format: Text, Ready: true, Top: 7, Width: 140, Summary: true}},
		{Options{Since: fortnight}, Style{Format: JSON, Top: 0}},
	} {
		if q, err := ParseQuery(want.Values()); err != nil || !reflect.DeepEqual(q, want) {
			t.Errorf("%+v became %+v, %v", want, q, err)
		}
	}
}
