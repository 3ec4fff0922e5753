package limits

import "testing"

func TestWhatOpenSSLPrints(t *testing.T) {
	rsa := "                  sign    verify    sign/s verify/s\nrsa 2048 bits 0.000269s 0.000016s   3716.8  62441.7\n"
	if got := signTime(rsa); got != "269 µs" {
		t.Errorf("RSA: %q", got)
	}
	ec := "                              sign    verify    sign/s verify/s\n 256 bits ecdsa (nistp256)   0.0000s   0.0001s  47619.0  15789.5\n"
	if got := signTime(ec); got != "21 µs" {
		t.Errorf("ECDSA: %q", got)
	}
	gcm := "type          16384 bytes\nAES-128-GCM    5876321.28k\n"
	if got := gcmRate(gcm); got != "5.9 GB/s" {
		t.Errorf("AES: %q", got)
	}
	if got := signTime("") + gcmRate(""); got != "" {
		t.Errorf("nothing: %q", got)
	}
}
