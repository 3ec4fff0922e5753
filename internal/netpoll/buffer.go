package netpoll

import (
	"sync"
	"syscall"
)

// bufferSize fits four full TLS records: one call reads them all.
const bufferSize = 64 << 10

// Buffer is what a read takes from the pool.
type Buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer takes a buffer from the pool.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Put gives the buffer back.
func (b *Buffer) Put() { buffers.Put(b) }

// ErrWouldBlock ends a read that found nothing. It is temporary, which keeps
// crypto/tls from remembering it.
var ErrWouldBlock error = syscall.EAGAIN
