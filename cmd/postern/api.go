package main

import "net/http"

// api is what answers below /api/v1/; who may ask is decided before it.
func (g *gate) api() http.Handler {
	return http.NewServeMux()
}
