package proxy

import "sync"

// bufferSize fits two full TLS records.
const bufferSize = 32 << 10

// buffer is what a read takes from the pool.
type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) put() { buffers.Put(b) }
