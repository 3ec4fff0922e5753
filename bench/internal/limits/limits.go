// Package limits measures what the machine can do at most: the primitives that
// a TLS proxy is made of, in Go and in OpenSSL, on one core each.
package limits

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Figure is one primitive: what it takes in Go and in OpenSSL, empty where one
// of them was not measured.
type Figure struct{ Name, Go, OpenSSL string }

// Measure takes about half a minute. Without the openssl program its column
// stays empty.
func Measure() ([]Figure, error) {
	const record, big = 16 << 10, 64 << 20
	digest := sha256.Sum256([]byte("x"))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	buf, nonce := make([]byte, record, record+gcm.Overhead()), make([]byte, gcm.NonceSize())
	from, to := make([]byte, big), make([]byte, big)
	for i := range from { // real pages, not the one of zeros
		from[i] = byte(i)
	}
	figures := []Figure{
		{"ECDSA P-256, sign", micros(each(func() { ecdsa.SignASN1(rand.Reader, ec, digest[:]) })), speed("ecdsap256")},
		{"RSA-2048, sign", micros(each(func() { rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest[:], nil) })), speed("rsa2048")},
		{"X25519, key and shared secret", micros(each(func() {
			if k, err := ecdh.X25519().GenerateKey(rand.Reader); err == nil {
				k.ECDH(peer.PublicKey())
			}
		})), ""},
		{"ML-KEM-768, encapsulate", micros(each(func() { kem.EncapsulationKey().Encapsulate() })), ""},
		{"AES-128-GCM, seal 16 KB", rate(record, each(func() { gcm.Seal(buf[:0], nonce, buf[:record], nil) })), speedGCM()},
		{"copy 64 MB", rate(big, each(func() { copy(to, from) })), ""},
	}
	tcp, err := connections()
	return append(figures, tcp...), err
}

// each repeats f for a second and returns how long one takes.
func each(f func()) time.Duration {
	n, t0 := 0, time.Now()
	for time.Since(t0) < time.Second {
		for range 8 {
			f()
		}
		n += 8
	}
	return time.Since(t0) / time.Duration(n)
}

// micros shows a duration in microseconds.
func micros(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1e3) }

// rate shows octets a duration in GB a second.
func rate(octets int, d time.Duration) string {
	return fmt.Sprintf("%.1f GB/s", float64(octets)/float64(d.Nanoseconds()))
}

// connections measures a TCP connection over loopback, both ends of it.
func connections() ([]Figure, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	d := each(func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Read(make([]byte, 1))
			c.Close()
		}
	})
	return []Figure{
		{"TCP connect, accept, close", micros(d), ""},
		{"TLS in the kernel", kernelTLS(l.Addr().String()), ""},
	}, nil
}

// kernelTLS says whether a socket can be given to the kernel's TLS.
func kernelTLS(addr string) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	var refused error
	err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptString(int(fd), unix.SOL_TCP, unix.TCP_ULP, "tls") })
	if err != nil || refused != nil {
		return "no"
	}
	return "yes"
}

// speed is the time that openssl speed says a signature takes.
func speed(algorithm string) string {
	out, err := exec.Command("openssl", "speed", "-seconds", "1", algorithm).Output()
	if err != nil {
		return ""
	}
	return signTime(string(out))
}

// signTime is what a signature takes by the last line of openssl speed, as in
// "rsa 2048 bits 0.000269s 0.000016s 3716.8 62441.7", whose last two numbers
// are signatures and verifications a second.
func signTime(out string) string {
	f := strings.Fields(out)
	if len(f) < 2 {
		return ""
	}
	perSecond, err := strconv.ParseFloat(f[len(f)-2], 64)
	if err != nil || perSecond == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f µs", 1e6/perSecond)
}

// speedGCM is the rate that openssl speed says AES-128-GCM has.
func speedGCM() string {
	out, err := exec.Command("openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", "aes-128-gcm").Output()
	if err != nil {
		return ""
	}
	return gcmRate(string(out))
}

// gcmRate finds the rate in the last line of openssl speed, as in
// "AES-128-GCM 5876321.28k", in thousands of bytes a second.
func gcmRate(out string) string {
	f := strings.Fields(out)
	if len(f) == 0 {
		return ""
	}
	num, ok := strings.CutSuffix(f[len(f)-1], "k")
	kb, err := strconv.ParseFloat(num, 64)
	if !ok || err != nil {
		return ""
	}
	return fmt.Sprintf("%.1f GB/s", kb/1e6)
}
