package hello

import "crypto/tls"

// Typical returns the offer of an ordinary client with that highest version:
// suites of its time, and extensions from TLS 1.0 on.
func Typical(version uint16) Spec {
	s := Spec{Version: min(version, tls.VersionTLS12), CipherSuites: suitesOf(version)}
	if version <= VersionSSL30 {
		s.NoExtensions = true
		return s
	}
	s.Groups = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	if version >= tls.VersionTLS12 {
		s.SignatureSchemes = []tls.SignatureScheme{
			tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256,
			tls.PSSWithSHA384, tls.PKCS1WithSHA384, tls.PKCS1WithSHA1,
		}
	}
	if version >= tls.VersionTLS13 {
		s.SessionID = random(32)
		s.SupportedVersions = []uint16{tls.VersionTLS13, tls.VersionTLS12}
	}
	return s
}

func suitesOf(version uint16) []uint16 {
	suites := []uint16{
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
	}
	switch {
	case version <= VersionSSL30:
		return append([]uint16{tls.TLS_RSA_WITH_RC4_128_SHA}, suites[7:]...)
	case version < tls.VersionTLS12:
		return suites[5:]
	case version == tls.VersionTLS12:
		return suites[2:]
	}
	return suites[:7]
}
