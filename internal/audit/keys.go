package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// A KeyStore is a file of the keys of subjects: a row for each, a JSON object on a line
// of its own, with its name, its random id and its key. Who erases the row makes
// unreadable what was sealed by the key.
//
// Several processes may use it at a time: rows are appended under a lock, a row is
// erased by putting another file in the place, and each use sees what the others did.
// Methods are safe for concurrent use.
type KeyStore struct {
	name string

	mu       sync.RWMutex
	file     *os.File // that was read: while it is open no other has its inode
	held     os.FileInfo
	read     int64 // how much of it
	subjects map[string]subjectKey
	ids      map[string]string // subjects
}

type subjectKey struct {
	id     string
	secret [32]byte
}

// A keyRow is a line of the file.
type keyRow struct {
	ID      string `json:"id"`
	Key     string `json:"key"`
	Subject string `json:"subject"`
}

// OpenKeyStore reads the file, and makes it, with mode 0600, where there is none and
// create says so.
func OpenKeyStore(name string, create bool) (*KeyStore, error) {
	k := &KeyStore{name: name}
	if create {
		f, err := k.lock()
		if err != nil {
			return nil, k.fail("open", err)
		}
		defer f.Close()
	}
	if err := k.refresh(); err != nil {
		return nil, k.fail("open", err)
	}
	return k, nil
}

// Close closes the file; the store must not be used after.
func (k *KeyStore) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.file.Close()
}

func (k *KeyStore) fail(what string, err error) error {
	return fmt.Errorf("%s the keys of the audit's subjects: %w", what, err)
}

// lock opens the file that has the name, and keeps others from changing it until it is
// closed.
func (k *KeyStore) lock() (*os.File, error) {
	for {
		f, err := os.OpenFile(k.name, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: k.name, Err: err}, f.Close())
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(k.name); err == nil && os.SameFile(mine, now) {
			return f, nil
		}
		_ = f.Close() // another took its place meanwhile
	}
}

// refresh reads what others have written.
func (k *KeyStore) refresh() error {
	for {
		now, err := os.Stat(k.name)
		if err != nil {
			return err
		}
		k.mu.RLock()
		same := k.held != nil && os.SameFile(k.held, now) && k.read == now.Size()
		k.mu.RUnlock()
		if same {
			return nil
		}
		if err := k.load(); err != nil {
			return err
		}
	}
}

// load reads the file, or what was appended to it.
func (k *KeyStore) load() error {
	f, err := os.Open(k.name)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if k.held == nil || !os.SameFile(k.held, info) || info.Size() < k.read {
		if k.file != nil {
			_ = k.file.Close() // it was read alone
		}
		k.file, k.held, k.read, k.subjects, k.ids = f, info, 0, map[string]subjectKey{}, map[string]string{}
	} else if err := f.Close(); err != nil {
		return err
	}
	text := make([]byte, info.Size()-k.read)
	if _, err := k.file.ReadAt(text, k.read); err != nil && err != io.EOF {
		return err
	}
	for line := range bytes.Lines(text) {
		if row, key, ok := parseKey(line); ok { // else it was torn, before anything was sealed by it
			k.subjects[row.Subject], k.ids[row.ID] = key, row.Subject
		}
	}
	k.read = info.Size()
	return nil
}

func parseKey(line []byte) (row keyRow, key subjectKey, ok bool) {
	if json.Unmarshal(line, &row) != nil {
		return row, key, false
	}
	secret, err := base64.RawURLEncoding.DecodeString(row.Key)
	if err != nil || len(secret) != len(key.secret) || row.ID == "" || row.Subject == "" {
		return row, key, false
	}
	key.id = row.ID
	copy(key.secret[:], secret)
	return row, key, true
}

func (k *KeyStore) find(subject string) (subjectKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.subjects[subject]
	return key, ok
}

func (k *KeyStore) byID(id string) (subjectKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.subjects[k.ids[id]]
	return key, ok && key.id == id
}

// ID returns the id of a subject that has one.
func (k *KeyStore) ID(subject string) (string, bool) {
	key, ok := k.find(rowOf(subject))
	return key.id, ok
}

// key returns the key of a subject, and makes one that is on the disk before anything
// is sealed by it.
func (k *KeyStore) key(subject string) (subjectKey, error) {
	if err := k.refresh(); err != nil {
		return subjectKey{}, k.fail("read", err)
	}
	if key, ok := k.find(subject); ok {
		return key, nil
	}
	f, err := k.lock()
	if err != nil {
		return subjectKey{}, k.fail("add to", err)
	}
	defer f.Close()
	if err := k.refresh(); err != nil {
		return subjectKey{}, k.fail("read", err)
	}
	if key, ok := k.find(subject); ok {
		return key, nil
	}
	var key subjectKey
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	_, _ = rand.Read(key.secret[:])
	key.id = hex.EncodeToString(id[:])
	line := []byte{}
	if torn, err := endsTorn(f); err != nil {
		return subjectKey{}, k.fail("add to", err)
	} else if torn {
		line = append(line, '\n')
	}
	line = append(line, `{"id":"`+key.id+`","key":"`+base64.RawURLEncoding.EncodeToString(key.secret[:])+`","subject":`...)
	line = append(appendText(line, subject), "}\n"...)
	if _, err = f.Write(line); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return subjectKey{}, k.fail("add to", err)
	}
	if err := k.refresh(); err != nil {
		return subjectKey{}, k.fail("read", err)
	}
	if _, ok := k.find(subject); !ok {
		return subjectKey{}, k.fail("add to", fmt.Errorf("%s: the row is not there", k.name))
	}
	return key, nil
}

func endsTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}

// Erase destroys the row of a subject, and reports whether there was one. The file is
// written anew without it, and the old one is overwritten.
func (k *KeyStore) Erase(subject string) (found bool, err error) {
	old, err := k.lock()
	if err != nil {
		return false, k.fail("erase from", err)
	}
	defer old.Close()
	if found, err = k.erase(old, rowOf(subject)); err != nil {
		return found, k.fail("erase from", err)
	}
	return found, nil
}

func (k *KeyStore) erase(old *os.File, subject string) (found bool, err error) {
	text, err := io.ReadAll(old)
	if err != nil {
		return false, err
	}
	var rest bytes.Buffer
	for line := range bytes.Lines(text) {
		row, _, ok := parseKey(line)
		switch {
		case ok && row.Subject == subject:
			found = true
		case ok:
			rest.Write(bytes.TrimRight(line, "\n"))
			rest.WriteByte('\n')
		}
	}
	if !found {
		return false, nil
	}
	dir := filepath.Dir(k.name)
	temp, err := os.CreateTemp(dir, filepath.Base(k.name)+".*") // mode 0600
	if err != nil {
		return true, err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	// The service must be able to read it, whoever erases.
	info, err := old.Stat()
	if err != nil {
		return true, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		if err := temp.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return true, err
		}
	}
	if _, err = temp.Write(rest.Bytes()); err == nil {
		err = errors.Join(temp.Chmod(info.Mode().Perm()), temp.Sync())
	}
	if err != nil {
		return true, err
	}
	over, err := os.OpenFile(k.name, os.O_WRONLY, 0) // the old one, which is not appended to
	if err != nil {
		return true, err
	}
	defer over.Close()
	if err := os.Rename(temp.Name(), k.name); err != nil {
		return true, err
	}
	// A file system that writes elsewhere keeps the old blocks for a while.
	if _, err = over.WriteAt(make([]byte, len(text)), 0); err == nil {
		err = over.Sync()
	}
	if err != nil {
		return true, fmt.Errorf("overwrite the old file: %w", err)
	}
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	return true, errors.Join(err, k.refresh())
}
