// Bucket is a store of S3's kind for the demo: it listens on an address of loopback and
// holds, in a bucket, what a directory has when it starts. It verifies signatures, by
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
//
//	bucket 127.0.0.1:9000 archive DIRECTORY
package main

import (
	"context"
	"fmt"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"os"
	"path"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bucket:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if len(args) != 3 || id == "" || secret == "" {
		return fmt.Errorf("usage: AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… bucket ADDRESS NAME DIRECTORY")
	}
	address, name, dir := args[0], args[1], args[2]
	backend := s3mem.New()
	if err := backend.CreateBucket(ctx, name); err != nil {
		return err
	}
	if err := fill(ctx, backend, name, os.DirFS(dir)); err != nil {
		return fmt.Errorf("fill the bucket: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	store := gofakes3.New(backend, gofakes3.WithV4Auth(map[string]string{id: secret}), gofakes3.WithLogger(gofakes3.DiscardLog()))
	return http.Serve(listener, store.Server()) // for a demo: it waits for whoever is slow
}

// fill puts the files of a tree into a bucket.
func fill(ctx context.Context, backend *s3mem.Backend, bucket string, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(key string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := tree.Open(key)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // it is only read
		info, err := file.Stat()
		if err != nil {
			return err
		}
		about := map[string]string{"Content-Type": mime.TypeByExtension(path.Ext(key)), "Last-Modified": info.ModTime().UTC().Format(http.TimeFormat)}
		_, err = backend.PutObject(ctx, bucket, key, about, file, info.Size())
		return err
	})
}
