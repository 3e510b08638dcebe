// Image writes an OCI image of securefiles, from nothing but its own binary, and the
// same bytes for the same arguments:
//
//	SOURCE_DATE_EPOCH=1795728312 image -arch amd64 -version 1.2.3 -commit 4f2a… \
//		-binary securefiles -doc DIR -o securefiles_1.2.3_amd64.oci.tar
//
// What it writes is an archive of an OCI image layout, with the manifest.json beside
// it by which `docker load` reads it too. The files in DIR, the licences of what the
// binary holds, go to /usr/share/doc/securefiles. Times are that of SOURCE_DATE_EPOCH.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user runs the service: a number, so that an orchestrator sees that it is not root.
// Distroless images have the same.
const user = 65532

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// Options are what an image is made of.
type Options struct {
	Arch, Version, Commit string
	Created               time.Time
	// Binary is the program, Doc a directory of files for /usr/share/doc.
	Binary, Doc string
}

func run(args []string) error {
	var o Options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.Arch, "arch", "", "architecture, as Go names it")
	flags.StringVar(&o.Version, "version", "", "version of the binary")
	flags.StringVar(&o.Commit, "commit", "", "commit of the binary")
	flags.StringVar(&o.Binary, "binary", "", "the binary")
	flags.StringVar(&o.Doc, "doc", "", "directory with licences")
	out := flags.String("o", "", "archive to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.Arch == "" || o.Version == "" || o.Binary == "" || o.Doc == "" || *out == "" || flags.NArg() > 0 {
		return errors.New("usage: image -arch ARCH -version VERSION -commit COMMIT -binary FILE -doc DIR -o FILE")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	o.Created = time.Unix(seconds, 0).UTC()
	image, err := Image(o)
	if err != nil {
		return err
	}
	return WriteArchive(*out, image, Tag(o.Version))
}

// Tag is a version as a tag, which has no plus.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "-") }

// Image makes the image.
func Image(o Options) (v1.Image, error) {
	files, err := layer(o)
	if err != nil {
		return nil, err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
	if err != nil {
		return nil, fmt.Errorf("make the layer: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: content, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: o.Created}, CreatedBy: "securefiles packaging/image"}})
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", o.Arch, v1.Time{Time: o.Created}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%[1]d", user),
		Entrypoint: []string{"/usr/bin/securefiles"},
		Cmd:        []string{"serve"},
		Env:        []string{"PATH=/usr/bin"},
		WorkingDir: "/etc/securefiles",
		StopSignal: "SIGTERM",
		// OCI knows none; Docker reads its own from here, others pass it by.
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/usr/bin/securefiles", "healthy"}, Interval: 10 * time.Second, Timeout: 5 * time.Second, StartPeriod: 5 * time.Second, Retries: 3},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "securefiles",
			"org.opencontainers.image.description": "Guards file downloads: nginx asks, Casbin policies decide, nginx sends the bytes",
			"org.opencontainers.image.licenses":    "BSD-3-Clause",
			"org.opencontainers.image.version":     o.Version,
			"org.opencontainers.image.revision":    o.Commit,
			"org.opencontainers.image.created":     o.Created.Format(time.RFC3339),
		},
	}
	return mutate.ConfigFile(image, config)
}

// layer is the one layer, as tar.
func layer(o Options) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var problem error
	put := func(h tar.Header, content []byte) {
		h.Size, h.ModTime, h.Format = int64(len(content)), o.Created, tar.FormatPAX
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(content)
		}
		problem = errors.Join(problem, err)
	}
	dir := func(name string, owner int) {
		put(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, Uid: owner, Gid: owner}, nil)
	}
	file := func(name string, mode int64, content []byte) {
		put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
	}
	binary, err := os.ReadFile(o.Binary)
	if err != nil {
		return nil, fmt.Errorf("read the binary: %w", err)
	}
	docs, err := os.ReadDir(o.Doc)
	if err != nil {
		return nil, fmt.Errorf("read the licences: %w", err)
	}
	for _, name := range []string{"etc", "etc/securefiles", "etc/ssl", "etc/ssl/certs", "run"} {
		dir(name, 0)
	}
	dir("run/securefiles", user) // the socket's; an empty volume that is mounted there becomes the same
	for _, name := range []string{"usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/securefiles"} {
		dir(name, 0)
	}
	file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nsecurefiles:x:%d:\n", user))
	file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/:/nonexistent\nsecurefiles:x:%d:%[1]d:securefiles:/nonexistent:/nonexistent\n", user))
	file("etc/ssl/certs/ca-certificates.crt", 0o644, roots())
	file("usr/bin/securefiles", 0o755, binary)
	for _, entry := range docs {
		content, err := os.ReadFile(filepath.Join(o.Doc, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the licences: %w", err)
		}
		file("usr/share/doc/securefiles/"+entry.Name(), 0o644, content)
	}
	if err := errors.Join(problem, w.Close()); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	return buf.Bytes(), nil
}

// roots are the certificates that Mozilla trusts, of the version in go.mod. Those that
// it trusts with conditions, which a file of certificates cannot say, are left out.
func roots() []byte {
	var all []byte
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
		}
	}
	return all
}

// WriteArchive writes an image to an archive, under a tag.
func WriteArchive(name string, image v1.Image, tag string) error {
	dir, err := os.MkdirTemp("", "securefiles-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := path.AppendImage(image, layout.WithPlatform(v1.Platform{OS: config.OS, Architecture: config.Architecture}), layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag,
		"io.containerd.image.name":          "docker.io/library/securefiles:" + tag,
	})); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := writeManifest(filepath.Join(dir, "manifest.json"), image, tag); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pack(f, dir, config.Created.Time), f.Close())
}

// writeManifest writes what `docker load` goes by.
func writeManifest(name string, image v1.Image, tag string) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	all := []tarball.Descriptor{{Config: blob(manifest.Config.Digest), RepoTags: []string{"securefiles:" + tag}}}
	for _, l := range manifest.Layers {
		all[0].Layers = append(all[0].Layers, blob(l.Digest))
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// pack writes a directory as tar, in the order of its names.
func pack(out io.Writer, dir string, at time.Time) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		h := tar.Header{Name: filepath.ToSlash(rel), Mode: 0o644, ModTime: at, Format: tar.FormatPAX}
		if d.IsDir() {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
			return w.WriteHeader(&h)
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}
