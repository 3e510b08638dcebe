package identity

import (
	"testing"
	"time"
)

// What is left out has the values that docs/configuration.md names.
func TestWhatIsLeftOut(t *testing.T) {
	passwords, err := NewBasic(usersFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	if passwords.remember != time.Minute || passwords.Challenge() != `Basic realm="downloads", charset="UTF-8"` {
		t.Errorf("passwords: %v, %s", passwords.remember, passwords.Challenge())
	}
	certificate, err := NewCertificate(CertificateOptions{})
	if err != nil || certificate.opts.Subject != SubjectCN || certificate.opts.Groups != "" {
		t.Errorf("certificate: %+v, %v", certificate, err)
	}
	for _, row := range []struct {
		opts              SessionOptions
		remember, refused time.Duration
	}{
		{SessionOptions{URL: "http://127.0.0.1/", Cookies: []string{"a"}}, 30 * time.Second, 5 * time.Second},
		{SessionOptions{URL: "http://127.0.0.1/", Cookies: []string{"a"}, SubjectHeader: "X-User", Remember: 2 * time.Second}, 2 * time.Second, 2 * time.Second},
	} {
		s, err := NewSession(row.opts)
		if err != nil {
			t.Fatal(err)
		}
		if s.timeout != time.Second || s.remember != row.remember || s.rememberRefused != row.refused || s.semaphore.free != 64 {
			t.Errorf("session: %v %v %v, %d calls", s.timeout, s.remember, s.rememberRefused, s.semaphore.free)
		}
	}
}
