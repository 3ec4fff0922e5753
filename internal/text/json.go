package text

import (
	"encoding/json"
	"io"
)

// WriteJSON writes a value for programs, in a form that people can read too.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
