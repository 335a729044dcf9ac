package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// StartTLS is [Start] for a server that talks TLS only. It returns the file with the
// certificate of the CA that vouches for the server, which is one of the test's own.
func StartTLS(t testing.TB) (addr, caFile string) {
	t.Helper()
	lookPath(t)
	dir := t.TempDir()
	caFile, certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "key.pem")
	ca, caKey := certificate(t, caFile, nil, nil)
	_, key := certificate(t, certFile, ca, caKey)
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	writePEM(t, keyFile, "PRIVATE KEY", der)

	roots := x509.NewCertPool()
	roots.AddCert(ca)
	s := launchTLS(t, &tls.Config{RootCAs: roots}, freePort, func(port, dir string) []string {
		plain := withoutDisk(Rights)(port, dir)
		return append(plain, "--port", "0", "--tls-port", port, "--tls-auth-clients", "no",
			"--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-ca-cert-file", caFile)
	})
	return s.addr, caFile
}

// certificate writes one for 127.0.0.1 that the CA has signed, or, without one, that of
// a CA.
func certificate(t testing.TB, file string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: filepath.Base(file)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	if ca == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		ca, caKey = template, key
	} else {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey))
	writePEM(t, file, "CERTIFICATE", der)
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
