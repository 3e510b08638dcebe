package authority

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	want := x509.NewCertPool()
	want.AddCert(server.Certificate())
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	file := func(name string, text []byte) string {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, file, problem string }{
		{"a certificate", file("one", one), ""},
		{"text around it", file("text", append([]byte("who vouches\n"), one...)), ""},
		{"no certificate", file("none", []byte("hello\n")), "holds no certificate in PEM form"},
		{"an empty file", file("empty", nil), "holds no certificate in PEM form"},
		{"more than can be", file("large", append(make([]byte, maxFileBytes), one...)), "larger than 1024 KiB"},
		{"no file", filepath.Join(dir, "missing"), "no such file"},
		{"a pipe, that nobody writes", pipe, "not a regular file"},
		{"a directory", dir, "not a regular file"},
	} {
		pool, err := Load(row.file)
		if row.problem == "" {
			if err != nil || !pool.Equal(want) {
				t.Errorf("%s: %v", row.name, err)
			}
		} else if err == nil || pool != nil || !strings.Contains(err.Error(), row.problem) || !strings.Contains(err.Error(), row.file) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
