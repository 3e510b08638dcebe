package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is kept is exported, restored and compacted while the service runs: nothing that was
// used up or revoked opens again by it, in a new file and in a Redis that is new.
func TestStateIsExportedAndRestored(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	type link struct{ URL, ID string }
	made := func(more ...string) (l link) {
		if err := json.Unmarshal([]byte(s.run(0, append([]string{"link", "create", "/project/plan.txt", "--as", "alice", "--json"}, more...)...)), &l); err != nil {
			t.Fatal(err)
		}
		l.URL += "&direct=1"
		return l
	}
	used, revoked, open, plain := made("--uses", "1"), made(), made("--uses", "1"), made() // counted links are kept when they are made
	s.status("", used.URL, 200)
	s.run(0, "link", "revoke", revoked.ID)
	s.run(0, "state", "backup", "copy.db")
	exported := s.run(0, "state", "export")
	if lines := strings.Split(exported, "\n"); !strings.HasPrefix(lines[0], `{"export":{"format":"1"`) || len(lines) != 5 || !strings.Contains(exported, `{"uses":{"link":"`+used.ID) {
		t.Errorf("export: %s", exported)
	}
	s.write("state.jsonl", s.run(0, "state", "export", "--passwords")+"\n")
	if got := s.run(0, "state", "compact"); !strings.HasPrefix(got, "compacted: ") {
		t.Errorf("compact: %s", got)
	}
	s.status("", used.URL, 410)
	s.status("", open.URL, 200) // after the copy

	holds := func(s *site) {
		t.Helper()
		s.status("", used.URL, 410)
		s.status("", revoked.URL, 410)
		s.status("", plain.URL, 200)
	}
	keys, err := os.ReadFile(filepath.Join(s.dir, "link-keys.json"))
	if err != nil {
		t.Fatal(err)
	}

	for _, file := range []string{"copy.db", "state.jsonl"} {
		end(s.daemon)
		if err := os.Remove(filepath.Join(s.dir, "state.db")); err != nil {
			t.Fatal(err)
		}
		s.startService()
		s.status("", revoked.URL, 200) // nobody knows
		if got := s.run(0, "state", "restore", file); !strings.HasPrefix(got, "restored: 4 entries") {
			t.Errorf("restore: %s", got)
		}
		s.run(0, "state", "restore", file)
		holds(s)
		end(s.daemon)
		s.startService()
		holds(s)
	}
	s.status("", open.URL, 200)
	s.run(0, "state", "restore", "copy.db") // is older
	s.status("", open.URL, 410)

	text, err := os.ReadFile(filepath.Join(s.dir, "copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("damaged.db", string(text[:len(text)/2]))
	s.write("other.jsonl", strings.Replace(exported, `"format":"1"`, `"format":"2"`, 1))
	for _, file := range []string{"damaged.db", "other.jsonl", "securefiles.yaml", "none"} {
		s.run(2, "state", "restore", file)
	}
	holds(s)

	there, _, _ := onRedis(t, "")
	there.write("link-keys.json", string(keys))
	there.eventually("both have read the keys", func() bool { // not 403, and closed
		for range 6 {
			if there.get("", used.URL).status != 503 {
				return false
			}
		}
		return true
	})
	there.run(0, "state", "restore", filepath.Join(s.dir, "state.jsonl"))
	there.status("", used.URL, 503)
	there.run(0, "state", "accept")
	for range 2 { // by both
		holds(there)
	}
	there.status("", open.URL, 200)
	there.run(2, "state", "compact")
	if again := there.run(0, "state", "export"); strings.Count(again, "\n{\"uses\":") != 2 {
		t.Errorf("export: %s", again)
	}
}
