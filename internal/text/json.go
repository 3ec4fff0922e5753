package text

import (
	"encoding/json"
	"io"
)

// WriteJSON writes a value for programs, in a form that people can read too. What
// HTML would take for markup is escaped.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
