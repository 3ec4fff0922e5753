package legacyhello

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"postern/internal/hello"
)

// parts are a hello in pieces.
type parts struct {
	version                      uint16
	session, suites, compression []byte
	block                        bool // there is a block of extensions
	extensions                   []hello.Extension
}

func (p *parts) body() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.version)
	b = append(b, make([]byte, randomLen)...)
	b = append(append(b, byte(len(p.session))), p.session...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.suites))), p.suites...)
	b = append(append(b, byte(len(p.compression))), p.compression...)
	if !p.block {
		return b
	}
	var block []byte
	for _, e := range p.extensions {
		block = binary.BigEndian.AppendUint16(block, e.Type)
		block = append(binary.BigEndian.AppendUint16(block, uint16(len(e.Data))), e.Data...)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(block))), block...)
}

func (p *parts) bytes() []byte { return record(3, 1, message(1, p.body())) }

// takeApart expects a sound hello.
func takeApart(b []byte) (p parts) {
	take := func(n int) (piece []byte) {
		piece, b = bytes.Clone(b[:n]), b[n:]
		return piece
	}
	number := func() uint16 { return binary.BigEndian.Uint16(take(2)) }
	take(9)
	p.version = number()
	take(randomLen)
	p.session = take(int(take(1)[0]))
	p.suites = take(int(number()))
	p.compression = take(int(take(1)[0]))
	if p.block = len(b) > 0; p.block {
		for number(); len(b) > 0; {
			kind := number()
			p.extensions = append(p.extensions, hello.Extension{Type: kind, Data: take(int(number()))})
		}
	}
	return p
}

// mutate changes a sound hello in one of many ways, some of which leave it so.
func mutate(r *rand.Rand, hellos []namedHello) []byte {
	pick := func() []byte { return hellos[r.IntN(len(hellos))].bytes }
	if r.IntN(14) < 4 {
		return mutateBytes(r, pick)
	}
	p := takeApart(pick())
	n := len(p.extensions)
	switch r.IntN(10) {
	case 0: // other versions
		p.version = []uint16{0, 2, 0x02ff, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0400}[r.IntN(9)]
	case 1:
		p.session = make([]byte, r.IntN(60))
	case 2: // other suites
		p.suites = make([]byte, r.IntN(300))
		for i := range p.suites {
			p.suites[i] = byte(r.Uint32())
		}
	case 3:
		p.compression = [][]byte{nil, {0}, {1}, {1, 0}, {0, 1, 64}}[r.IntN(5)]
	case 4, 5: // an extension more, often a second one of its kind
		if donor := takeApart(pick()); len(donor.extensions) > 0 {
			p.block = true
			p.extensions = slices.Insert(p.extensions, r.IntN(n+1), donor.extensions[r.IntN(len(donor.extensions))])
		}
	case 6: // another extension more
		p.block = true
		e := hello.Extension{Type: uint16(r.IntN(60)), Data: make([]byte, r.IntN(6))}
		if r.IntN(3) == 0 {
			e.Type = []uint16{0x1a1a, 0xfafa, 0x1a2a, 13172, 17513, 0xff01, 0xfe0d}[r.IntN(7)]
		}
		for i := range e.Data {
			e.Data[i] = byte(r.IntN(5))
		}
		p.extensions = slices.Insert(p.extensions, r.IntN(n+1), e)
	case 7: // one less, or all in another order
		if n > 0 && r.IntN(2) == 0 {
			p.extensions = slices.Delete(p.extensions, r.IntN(n), n)
		}
		r.Shuffle(len(p.extensions), func(i, j int) { p.extensions[i], p.extensions[j] = p.extensions[j], p.extensions[i] })
	case 8, 9: // another byte in an extension, or one more or less
		if n == 0 {
			break
		}
		e := &p.extensions[r.IntN(n)]
		switch k := len(e.Data); {
		case k == 0 || r.IntN(4) == 0:
			e.Data = append(e.Data, byte(r.IntN(3)))
		case r.IntN(3) == 0:
			e.Data = e.Data[:k-1]
		default:
			e.Data[r.IntN(min(k, 6))] = byte(r.IntN(8))
		}
	}
	return p.bytes()
}

// mutateBytes changes one without regard to what it is made of.
func mutateBytes(r *rand.Rand, pick func() []byte) []byte {
	switch r.IntN(4) {
	case 0: // another byte
		b := bytes.Clone(pick())
		b[r.IntN(len(b))] = byte(r.Uint32())
		return b
	case 1: // another bit of what is not random
		b := bytes.Clone(pick())
		i := r.IntN(len(b) - randomLen)
		if i >= 11 {
			i += randomLen
		}
		b[i] ^= 1 << r.IntN(8)
		return b
	case 2: // cut or grown, with lengths that fit
		body := bytes.Clone(pick()[9:])
		if r.IntN(2) == 0 {
			body = body[:r.IntN(len(body))]
		} else {
			body = append(body, make([]byte, 1+r.IntN(3))...)
		}
		return record(3, byte(r.IntN(5)), message(1, body))
	default: // two in one
		a, b := pick(), pick()
		return slices.Concat(a[:r.IntN(len(a))], b[r.IntN(len(b)):])
	}
}

// assemble makes a hello of any bytes: unlike these it has the right lengths in
// most places.
func assemble(data []byte) []byte {
	next := func(n int) (piece []byte) {
		n = min(n, len(data))
		piece, data = data[:n], data[n:]
		return piece
	}
	number := func() int { return int(append(bytes.Clone(next(1)), 0)[0]) }
	p := parts{version: 0x0300 + uint16(number()%4), compression: []byte{0}}
	p.session = next(number() % 40)
	p.suites = next(2 * (1 + number()%140))
	for len(data) > 0 {
		p.block = true
		var e hello.Extension
		switch kind := number(); kind % 4 {
		case 0:
			e.Type = uint16(number())<<8 | uint16(number())
		default:
			e.Type = []uint16{0, 5, 10, 11, 13, 16, 18, 21, 23, 35, 43, 0xff01}[kind/4%12]
		}
		e.Data = next(number())
		switch n := len(e.Data); number() % 3 { // as a list
		case 1:
			e.Data = append([]byte{byte(n)}, e.Data...)
		case 2:
			e.Data = append([]byte{byte(n >> 8), byte(n)}, e.Data...)
		}
		p.extensions = append(p.extensions, e)
	}
	return p.bytes()
}

// FuzzParse parses any bytes, the same as the body of a hello, and a hello that
// is made by them.
func FuzzParse(f *testing.F) {
	hellos := legacyHellos(f)
	for _, h := range hellos {
		if len(h.bytes) < 1000 {
			f.Add(h.bytes)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		if b := mutate(r, hellos); len(b) < 1000 {
			f.Add(b)
		}
	}
	f.Add([]byte{})
	f.Add(append([]byte{1, 0, 0, 0, 47, 1, 5, 0, 3, 'a', '.', 'b'}, 2, 9, 4, 0, 23, 0, 24, 2, 13, 1, 0, 1, 21, 3, 2, 'h', '2', 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		flights := [][]byte{data, assemble(data)}
		if len(data) > 9 {
			flights = append(flights, record(3, 1, message(1, data[9:])))
		}
		for _, b := range flights {
			check(t, b)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, h := range capturedHellos(b) {
		if h.name != "openssl -tls1 plain" && h.name != "java TLSv1" {
			continue
		}
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := Parse(h.bytes); !ok {
					b.Fatal("not understood")
				}
			}
		})
		b.Run(h.name+" by crypto/tls", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				cryptoTLS(h.bytes, strictConfigs[0])
			}
		})
	}
}
