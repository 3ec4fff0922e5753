package report

import (
	"reflect"
	"testing"
	"time"
)

func TestOptionsGoThroughAQuery(t *testing.T) {
	for _, o := range []Options{{Since: time.Second}, {Since: fortnight, By: BySoftware, Noise: true, Max: 12, MaxUnknown: 3, Mail: true}} {
		q, err := ParseQuery(o.Values())
		if err != nil || !reflect.DeepEqual(q, Query{o, Style{Format: JSON, Top: DefaultTop, Mail: o.Mail}}) {
			t.Errorf("%+v became %+v, %v", o, q, err)
		}
	}
}
