package storage

import (
	"context"
	"testing"
)

// A wrongSigner signs for another object than it was asked for.
type wrongSigner struct {
	signer
	signed string
}

func (w wrongSigner) sign(context.Context, request) (string, error) { return w.signed, nil }

func TestNothingButTheObjectThatWasAllowedIsSigned(t *testing.T) {
	s := newTestS3(t, "https://s3.example.org")
	for signed, good := range map[string]bool{
		"/files/sub/a?x": true, "/files/sub/b?x": false, "/files/a?x": false, "/other/sub/a?x": false, "/files/sub/a/../b?x": false, "https://evil.example/files/sub/a?x": false, "": false,
	} {
		s.signer = wrongSigner{signed: signed}
		if where, err := s.Locate(t.Context(), asking(t, "GET", "a")); (err == nil) != good {
			t.Errorf("%q: %+v, %v", signed, where, err)
		}
	}
}
