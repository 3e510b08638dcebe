package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func private(t testing.TB, o PrivacyOptions) *Privacy {
	t.Helper()
	p, err := NewPrivacy(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keyStore(t testing.TB, name string) *KeyStore {
	t.Helper()
	k, err := OpenKeyStore(name, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func bobs() Record {
	return Record{
		Version: Version, Type: TypeDecision, Time: newYear, Request: "r1", Download: "main", Path: "/project/plan.pdf", Action: "read", Subject: "bob", Groups: []string{"@bobs-friends"},
		Source: "header", Link: "l1", Maker: "eve", Client: "198.51.100.7", Agent: "BobBrowser/1", Referrer: "https://bobs.example", Method: "GET", Decision: "allow", Reason: "policy", Line: "policy.csv:17", Status: 204,
	}
}

func TestAddressesAreShortened(t *testing.T) {
	p := private(t, PrivacyOptions{Addresses: AddressesShort})
	for address, want := range map[string]string{
		"198.51.100.7": "198.51.100.0/24", "::ffff:198.51.100.7": "198.51.100.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48", "": "", "unix:": "", "198.51.100.0/24": "198.51.100.0/24",
	} {
		r := Record{Type: TypeDelivery, Client: address}
		if err := p.Apply(&r); err != nil || r.Client != want {
			t.Errorf("%s: %s, %v", address, r.Client, err)
		}
	}
	r := bobs()
	if err := private(t, PrivacyOptions{Addresses: AddressesNone}).Apply(&r); err != nil || r.Client != "" {
		t.Errorf("none: %s, %v", r.Client, err)
	}
}

func TestSubjectsAreReplacedByAKeyedHash(t *testing.T) {
	p := private(t, PrivacyOptions{Key: func() string { return strings.Repeat("k", 32) }})
	r := bobs()
	if err := p.Apply(&r); err != nil || r.Subject != Keyed(strings.Repeat("k", 32), "bob") || !strings.HasPrefix(r.Subject, keyedPrefix) || r.Maker == "eve" {
		t.Errorf("%+v, %v", r, err)
	}
	if other := Keyed(strings.Repeat("x", 32), "bob"); other == r.Subject {
		t.Error("another key makes the same of it")
	}
	// A record that was read again is not hashed twice; a subject that says to be hashed is.
	again := r
	p.Restore(&again)
	if err := p.Apply(&again); err != nil || again.Subject != r.Subject {
		t.Errorf("again: %s, %v", again.Subject, err)
	}
	if err := p.Apply(&r); err != nil || r.Subject == again.Subject {
		t.Errorf("%s stays, %v", r.Subject, err)
	}
	for _, nobody := range []string{"", "anonymous"} {
		r := Record{Type: TypeDecision, Subject: nobody}
		if err := p.Apply(&r); err != nil || r.Subject != nobody {
			t.Errorf("%q: %q, %v", nobody, r.Subject, err)
		}
	}
}

// Each member that can be left out is.
func TestMembersAreLeftOut(t *testing.T) {
	for _, name := range Omittable() {
		r := bobs()
		r.Protocol = "2"
		if line := r.Append(nil); !bytes.Contains(line, []byte(`"`+name+`":`)) {
			t.Fatalf("%s is not in %s", name, line)
		}
		if err := private(t, PrivacyOptions{Omit: []string{name}}).Apply(&r); err != nil || bytes.Contains(r.Append(nil), []byte(`"`+name+`":`)) {
			t.Errorf("%s, %v: %s", name, err, r.Append(nil))
		}
	}
	for _, o := range []PrivacyOptions{{Omit: []string{"path"}}, {Omit: []string{"nonsense"}}, {Addresses: "half"}, {Key: func() string { return "" }, Keys: &KeyStore{}}} {
		if _, err := NewPrivacy(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// What tells of a person is sealed; who has the keys finds it, and after an erasure
// nobody does.
func TestErasedSubjectIsInNoFile(t *testing.T) {
	dir := t.TempDir()
	name, keysName := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "audit.keys")
	keys := keyStore(t, keysName)
	p := private(t, PrivacyOptions{Keys: keys})
	signer, public := testKey(t)
	w, err := OpenWriter(name, &WriterOptions{Transform: p, Chain: &ChainOptions{Signer: signer}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	bob, alice, nobody := bobs(), bobs(), bobs()
	alice.Subject, alice.Path, alice.Request, alice.Groups = "alice", "/a.pdf", "r2", nil
	nobody.Subject, nobody.Request = "anonymous", "r3"
	late := bob
	late.Type, late.Decision, late.Delivery, late.Bytes, late.Length, late.Status = TypeDelivery, "", Complete, 10, 10, 200
	for _, r := range []Record{bob, alice, nobody, late} {
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, planted := range []string{"bob", "plan.pdf", "198.51", "BobBrowser", "eve", "bobs.example", "alice"} {
		if bytes.Contains(text, []byte(planted)) {
			t.Errorf("%s is in the file: %s", planted, text)
		}
	}
	before := bytes.Clone(text)

	id, ok := keys.ID("bob")
	if !ok || !bytes.Contains(text, []byte(id)) {
		t.Fatalf("%q is not in the file", id)
	}
	open := &Files{Paths: []string{name}, Open: keys.Open}
	asked := func(q *Query) (found []Record, report *Report) {
		t.Helper()
		report, err := open.Search(t.Context(), q, func(f *Found) error {
			if !f.Opened {
				t.Errorf("%s is found sealed", f.Line)
			}
			r := *f.Record
			r.Seq, r.Hash = 0, ""
			found = append(found, r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found, report
	}
	found, _ := asked(&Query{Subjects: []string{"bob", id}, Path: "/project/**", Group: "bobs-friends"})
	if len(found) != 2 || !reflect.DeepEqual(found[0], bob) || !reflect.DeepEqual(found[1], late) {
		t.Fatalf("found %+v", found)
	}
	if found, _ := asked(&Query{Path: "/project/plan.pdf"}); len(found) != 3 {
		t.Errorf("by path: %+v", found)
	}
	// Without the keys it is told that there may be some.
	if found, report := search(t, &Files{Paths: []string{name}}, &Query{Path: "/project/plan.pdf"}); len(found) != 0 || report.Sealed != 4 {
		t.Errorf("without keys: %d, %+v", len(found), report)
	}

	// Another process erases, and the old file holds nothing any more.
	old, err := os.Open(keysName)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close() //nolint:errcheck // it is read alone
	other := keyStore(t, keysName)
	if found, err := other.Erase("bob"); !found || err != nil {
		t.Fatal(found, err)
	}
	if rows, err := io.ReadAll(old); err != nil || len(rows) == 0 || len(bytes.Trim(rows, "\x00")) > 0 {
		t.Errorf("the old file holds %s: %v", rows, err)
	}
	if found, err := other.Erase("bob"); found || err != nil {
		t.Errorf("again: %v, %v", found, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || bytes.Contains(text, []byte("bob")) {
			t.Errorf("bob is in %s: %v", e.Name(), err)
		}
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
		t.Error("what was written has changed") // the chain runs over it
	}
	if err := keys.refresh(); err != nil {
		t.Fatal(err)
	}
	if found, report := asked(&Query{Path: "/project/plan.pdf"}); len(found) != 1 || report.Sealed != 2 {
		t.Errorf("after the erasure: %+v, %+v", found, report)
	}
	if found, _ := asked(&Query{Subjects: []string{"alice"}}); len(found) != 0 {
		// alice is in the lines by her id alone
		t.Errorf("by name: %+v", found)
	}
	// The service notes it: bob's next record has another id.
	if err := w.Write(&bob); err != nil {
		t.Fatal(err)
	}
	if now, ok := keys.ID("bob"); !ok || now == id {
		t.Errorf("id %q after the erasure, %q before", now, id)
	}
	if v, problems := verify(t, &VerifyOptions{Key: public}, name); len(problems) > 0 || v.Records < 6 || v.Torn+v.Unchained > 0 {
		t.Errorf("the chain after the erasure: %+v, %v", v, problems)
	}
}

// What was sealed cannot be put into another record.
func TestSealedTextOpensInItsRecordAlone(t *testing.T) {
	keys := keyStore(t, filepath.Join(t.TempDir(), "keys"))
	p := private(t, PrivacyOptions{Keys: keys})
	a, b := bobs(), bobs()
	b.Request, b.Path = "r2", "/other"
	for _, r := range []*Record{&a, &b} {
		if err := p.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	if a.Sealed == b.Sealed {
		t.Error("one text for two records")
	}
	a.Sealed = b.Sealed
	if keys.Open(&a) {
		t.Errorf("opened %+v", a)
	}
	if !keys.Open(&b) || b.Path != "/other" {
		t.Errorf("not opened: %+v", b)
	}
	for _, text := range []string{"", "!", "AAAA"} {
		if r := (Record{Subject: "x", Sealed: text}); keys.Open(&r) {
			t.Errorf("%q opened", text)
		}
	}
}

// A record that was read again is sealed again, or stays as it is once it was erased.
func TestRestoredRecordIsSealedAgain(t *testing.T) {
	keys := keyStore(t, filepath.Join(t.TempDir(), "keys"))
	p := private(t, PrivacyOptions{Keys: keys})
	written := bobs()
	if err := p.Apply(&written); err != nil {
		t.Fatal(err)
	}
	again := written
	p.Restore(&again)
	if again.Subject != "bob" || again.Path != "/project/plan.pdf" {
		t.Errorf("restored: %+v", again)
	}
	again.Type = TypeDelivery
	if err := p.Apply(&again); err != nil || again.Subject != written.Subject || again.Path != "" || !keys.Open(&again) || again.Path != "/project/plan.pdf" {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := keys.Erase("bob"); err != nil {
		t.Fatal(err)
	}
	erased := written
	p.Restore(&erased)
	if err := p.Apply(&erased); err != nil || erased.Sealed != written.Sealed || erased.Subject != written.Subject {
		t.Errorf("%+v, %v", erased, err)
	}
}

// One subject has one key, however many ask at a time, in several processes; a row that
// was torn by a crash does not hurt the next.
func TestKeyStoreIsUsedByManyAtATime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte(`{"id":"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	stores := []*KeyStore{keyStore(t, name), keyStore(t, name), keyStore(t, name)}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := stores[i%3].key(fmt.Sprint("user", j)); err != nil {
					t.Error(err)
				}
				if i == 0 && j%5 == 0 {
					if _, err := stores[0].Erase("nobody-there"); err != nil {
						t.Error(err)
					}
					if found, err := stores[0].Erase(fmt.Sprint("user", j)); !found || err != nil {
						t.Error(j, found, err)
					}
				}
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range bytes.Lines(text) {
		row, _, ok := parseKey(line)
		if ok && rows[row.Subject] {
			t.Errorf("%s has two rows", row.Subject)
		}
		rows[row.Subject] = true
	}
	for j := range 20 {
		subject := fmt.Sprint("user", j)
		var ids []string
		for _, k := range stores {
			key, err := k.key(subject)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, key.id)
		}
		if ids[0] != ids[1] || ids[1] != ids[2] {
			t.Errorf("%s has the ids %v", subject, ids)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Without its key nothing is written of a person.
func TestRecordIsNotWrittenWhereTheKeyCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	keys := keyStore(t, filepath.Join(dir, "keys"))
	w, err := OpenWriter(filepath.Join(dir, "audit.jsonl"), &WriterOptions{Transform: private(t, PrivacyOptions{Keys: keys})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if err := os.Rename(filepath.Join(dir, "keys"), filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	r := bobs()
	if err := w.Write(&r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "audit.jsonl")); err != nil || len(text) > 0 {
		t.Errorf("%v: %s", err, text)
	}
}

func TestRetentionRemovesRotatedFilesByAge(t *testing.T) {
	dir := t.TempDir()
	now := newYear.Add(1000 * time.Hour)
	for name, age := range map[string]time.Duration{
		"audit.jsonl": 100, "audit.jsonl.1": 49, "audit.jsonl.2.gz": 51, "audit.jsonl-20260101.zst": 500, "audit.jsonl.3.xz": 500, "audit.jsonl.4.bz2": 49, "audit.jsonl.awaited": 500, "audit.keys": 500, "other.jsonl.1": 500,
	} {
		name = filepath.Join(dir, name)
		writeCompressed(t, name, []byte("x\n"))
		written := now.Add(-age * time.Hour)
		if err := os.Chtimes(name, written, written); err != nil {
			t.Fatal(err)
		}
	}
	deleted, err := Retention{File: filepath.Join(dir, "audit.jsonl"), Age: 50 * time.Hour}.Delete(t.Context(), now)
	want := []string{filepath.Join(dir, "audit.jsonl-20260101.zst"), filepath.Join(dir, "audit.jsonl.2.gz"), filepath.Join(dir, "audit.jsonl.3.xz")}
	if err != nil || !reflect.DeepEqual(deleted, want) {
		t.Errorf("%v, %v", deleted, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 6 {
		t.Errorf("%v, %v", entries, err)
	}
}
