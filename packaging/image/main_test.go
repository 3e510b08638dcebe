package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// build makes an image of this tree in a new directory, and returns the archive.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary, doc := filepath.Join(dir, "securefiles"), filepath.Join(dir, "doc")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", binary, ".")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := errors.Join(os.Mkdir(doc, 0o700), os.WriteFile(filepath.Join(doc, "LICENSE"), []byte("text"), 0o600)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "image.oci.tar")
	t.Setenv("SOURCE_DATE_EPOCH", "1795728312")
	if err := run([]string{"-arch", "amd64", "-version", "1.2.3+4.gabcdef0", "-commit", "abcdef0", "-binary", binary, "-doc", doc, "-o", out}); err != nil {
		t.Fatal(err)
	}
	return out
}

// readers are the two ways in which an archive is read.
func readers(t *testing.T, archive string) map[string]v1.Image {
	t.Helper()
	dir := t.TempDir()
	unpack(t, open(t, archive), dir)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%+v, %v", manifest, err)
	}
	if name := manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; name != "1.2.3-4.gabcdef0" {
		t.Errorf("the tag is %q", name)
	}
	oci, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	docker, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]v1.Image{"OCI": oci, "docker load": docker}
}

func open(t *testing.T, name string) io.ReadCloser {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// unpack unpacks a tar, and returns the names in it.
func unpack(t *testing.T, from io.ReadCloser, dir string) (names []string) {
	t.Helper()
	defer from.Close()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		to := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(to, mode(h))
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, mode(h)))
			}
		default:
			t.Fatalf("%s is neither a file nor a directory", h.Name)
		}
		if err == nil && os.Getuid() == 0 {
			err = os.Chown(to, h.Uid, h.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mode(h *tar.Header) os.FileMode { return os.FileMode(h.Mode).Perm() }

// The same tree gives the same image, built twice.
func TestTheSameBytes(t *testing.T) {
	var archives [2][]byte
	for i := range archives {
		var err error
		if archives[i], err = os.ReadFile(build(t)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("built twice, the image differs")
	}
}

// The image holds the service, whom it trusts, and its licences: no shell, nothing that
// others may write, nothing that runs as somebody else. Both readers see the same.
func TestTheImageHoldsNothingElse(t *testing.T) {
	for name, image := range readers(t, build(t)) {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			names := unpack(t, mutate.Extract(image), root)
			want := []string{"etc", "etc/group", "etc/passwd", "etc/securefiles", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "run", "run/securefiles",
				"usr", "usr/bin", "usr/bin/securefiles", "usr/share", "usr/share/doc", "usr/share/doc/securefiles", "usr/share/doc/securefiles/LICENSE"}
			slices.Sort(want)
			for i := range names {
				names[i] = strings.TrimSuffix(names[i], "/")
			}
			slices.Sort(names)
			if !slices.Equal(names, want) {
				t.Errorf("it holds %q, want %q", names, want)
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			c := config.Config
			if c.User != "65532:65532" || config.Architecture != "amd64" || config.OS != "linux" || !slices.Equal(c.Entrypoint, []string{"/usr/bin/securefiles"}) || !slices.Equal(c.Cmd, []string{"serve"}) {
				t.Errorf("it runs %q %q as %q on %s/%s", c.Entrypoint, c.Cmd, c.User, config.OS, config.Architecture)
			}
			if c.Healthcheck == nil || !slices.Equal(c.Healthcheck.Test, []string{"CMD", "/usr/bin/securefiles", "healthy"}) {
				t.Errorf("its health is checked by %+v", c.Healthcheck)
			}
			for label, value := range map[string]string{"version": "1.2.3+4.gabcdef0", "revision": "abcdef0", "licenses": "BSD-3-Clause", "title": "securefiles", "created": "2026-11-26T21:25:12Z"} {
				if got := c.Labels["org.opencontainers.image."+label]; got != value {
					t.Errorf("label %s is %q, want %q", label, got, value)
				}
			}
			certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
			if err != nil {
				t.Fatal(err)
			}
			if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(certificates) || bytes.Count(certificates, []byte("BEGIN CERTIFICATE")) < 50 {
				t.Error("it trusts nobody")
			}
		})
	}
}

// Unpacked, it serves as the user that it names, with nothing else below its root:
// healthy says so, and says no when it has gone.
func TestTheImageRuns(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, mutate.Extract(readers(t, build(t))["OCI"]), root)
	etc := filepath.Join(root, "etc/securefiles")
	for name, text := range map[string]string{
		"securefiles.yaml": "listen: unix:/run/securefiles/auth.sock\nadmin: unix:/run/securefiles/admin.sock\npolicy: {file: policy.csv, timezone: Europe/Berlin}\n", // a zone, and no zoneinfo
		"policy.csv":       "p, @anyone, /**, read, allow\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := inside(t.Context(), root, "healthy").CombinedOutput(); err == nil || !strings.Contains(string(out), "is not well") {
		t.Fatalf("healthy without a service: %v, %s", err, out)
	}
	serve := inside(t.Context(), root, "serve")
	var log bytes.Buffer
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(root, "run/securefiles/admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	for tick := time.Tick(20 * time.Millisecond); ; {
		answer, err := client.Get("http://localhost/readyz")
		if err == nil {
			answer.Body.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("serve: %v\n%s", err, log.String())
		case <-tick:
		}
	}
	if out, err := inside(t.Context(), root, "healthy").CombinedOutput(); err != nil {
		t.Errorf("healthy: %v, %s", err, out)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v\n%s", err, log.String())
	}
	if err := inside(t.Context(), root, "healthy").Run(); err == nil {
		t.Error("healthy after the service has gone")
	}
}

// inside is a command of the image's binary below a root, as its user, with nginx's
// group of nginx's image; without root's rights in a namespace of its own.
func inside(ctx context.Context, root string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/usr/bin/securefiles", args...)
	cmd.Dir, cmd.Env = "/etc/securefiles", []string{"PATH=/usr/bin"}
	const nginx = 101
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: nginx}}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: nginx, HostID: os.Getgid(), Size: 1}}}
	}
	return cmd
}
