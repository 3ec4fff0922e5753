//go:build race

package proxy

import (
	"runtime"
	"unsafe"
)

// The race detector does not see what the kernel does with a buffer; it is told.

func raceWrite(b []byte) { runtime.RaceWriteRange(unsafe.Pointer(unsafe.SliceData(b)), len(b)) }

func raceRead(b []byte) { runtime.RaceReadRange(unsafe.Pointer(unsafe.SliceData(b)), len(b)) }
