package proxy

import "sync"

// bufferSize fits four full TLS records: what is read at once costs one call.
const bufferSize = 64 << 10

// buffer is what a read takes from the pool.
type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) put() { buffers.Put(b) }
