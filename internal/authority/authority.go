// Package authority reads the certificates that vouch for servers.
//
// It does not say which server is asked, nor whether its certificate is checked.
package authority

import (
	"crypto/x509"
	"errors"
	"fmt"

	"securefiles/internal/regular"
)

// maxFileBytes is the most that is read of a file: some five hundred certificates.
const maxFileBytes = 1 << 20

// Load returns the certificates of a file, a ca_file, in PEM form (RFC 7468). None in it is an error,
// and so is whatever else has its name: a pipe, a directory, more than 1 MiB.
func Load(file string) (*x509.CertPool, error) {
	text, err := regular.Read(file, maxFileBytes)
	switch {
	case errors.Is(err, regular.ErrTooLarge):
		return nil, fmt.Errorf("%s: larger than %d KiB, the most that is read of certificates", file, maxFileBytes>>10)
	case err != nil:
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
