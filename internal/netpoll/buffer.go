package netpoll

import "sync"

// bufferSize fits four full TLS records: one call reads them all.
const bufferSize = 64 << 10

// Buffer is what a read takes from the pool.
type Buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer takes a buffer from the pool.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Put gives the buffer back.
func (b *Buffer) Put() { buffers.Put(b) }

type wouldBlock struct{}

// ErrWouldBlock ends a read that found nothing. It is temporary, which keeps
// crypto/tls from remembering it.
var ErrWouldBlock error = wouldBlock{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }
