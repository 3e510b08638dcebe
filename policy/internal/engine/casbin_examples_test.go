package engine

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/table"
)

// Casbin's own examples, each of its models with each of its policies whose lines
// fit: requests of all words that occur in it, and of some that do not. They are
// read where Go keeps Casbin's source.
func TestCasbinExamplesDecideTheSame(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/casbin/casbin/v2").Output()
	if err != nil {
		t.Fatalf("find Casbin's source: %v", err)
	}
	examples := filepath.Join(strings.TrimSpace(string(out)), "examples")
	read := func(pattern string) map[string]string {
		files, err := filepath.Glob(filepath.Join(examples, pattern))
		if err != nil {
			t.Fatal(err)
		}
		texts := map[string]string{}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) < 8192 {
				texts[filepath.Base(file)] = string(text)
			}
		}
		return texts
	}
	models, policies := read("*.conf"), read("*.csv")
	if len(models) < 40 || len(policies) < 30 {
		t.Fatalf("found %d models and %d policies", len(models), len(policies))
	}
	random := rand.New(rand.NewPCG(5, 6))
	var n tally
	worlds, served := 0, map[string]bool{}
	for modelName, model := range models {
		for _, policy := range policies {
			w := newPair(t, model, policy, Options{})
			if w == nil || w.table.Rows.Len() == 0 {
				continue
			}
			worlds++
			served[modelName] = true
			words := wordsOf(w.table)
			word := func() string { return words[random.IntN(len(words))] }
			for range 150 {
				q := authz.Query{Principal: authz.Principal{Subject: word()}, Object: word(), Action: word(), Domain: word(), Host: word(), IP: "192.168.2.1"}
				if random.IntN(4) == 0 {
					q.Object += "/more"
				}
				n.compare(t, w, &q)
			}
		}
	}
	t.Logf("%d models, %d pairs, %+v", len(served), worlds, n)
	if len(served) < 12 || worlds < 60 || n.allowed < 200 {
		t.Errorf("%d models, %d pairs, %+v say little", len(served), worlds, n)
	}
}

// wordsOf returns what a policy's fields hold, and a few words more.
func wordsOf(t *table.Table) []string {
	words := []string{"nobody", "/", "data2", "read"}
	for s := range t.Symbols.Len() {
		if text := t.Symbols.Text(table.Symbol(s)); text != "" && !slices.Contains(words, text) {
			words = append(words, text)
		}
	}
	return words
}
