package integration_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// What nginx's client gets and what POST /explain says are the same, before and
// after the line that it names is mended; the token is read again on SIGHUP.
func TestExplainOfARunningService(t *testing.T) {
	first, second := strings.Repeat("1", 32), strings.Repeat("2", 32)
	s := start(t, plan{policy: alicesPolicy, extra: "admin_token_file: token\n", before: func(s *site) { s.write("token", first+"\n") }})
	type explanation struct {
		Allowed bool
		Reason  string
		Nearest []struct {
			Line    int
			Clauses []struct {
				Holds  bool
				Detail string
			}
		}
	}
	ask := func(token string) (status int, x explanation) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.admin+"/explain", strings.NewReader(`{"subject": "bob", "path": "/downloads/project/plan.txt"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close() // it was read
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == http.StatusOK {
			if err := json.Unmarshal(body, &x); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
		}
		return answer.StatusCode, x
	}
	s.status("bob", "/downloads/project/plan.txt", 404)
	status, x := ask(first)
	if status != http.StatusOK || x.Allowed || x.Reason != "default-deny" || len(x.Nearest) == 0 || x.Nearest[0].Line != 3 ||
		x.Nearest[0].Clauses[0].Detail != `"bob" is not "editor" and has no role that leads to it` {
		t.Fatalf("status %d: %+v", status, x)
	}
	s.replace("policy.csv", alicesPolicy+"g, bob, editor\n")
	s.eventually("bob is an editor", func() bool { _, x := ask(first); return x.Allowed })
	s.status("bob", "/downloads/project/plan.txt", 200)

	s.write("token", second)
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("the new token opens", func() bool { status, _ := ask(second); return status == http.StatusOK })
	if status, _ := ask(first); status != http.StatusUnauthorized {
		t.Errorf("the old token: status %d", status)
	}
	if !strings.Contains(s.log.String(), "others may read the admin token") {
		t.Error("the mode of the file was not warned of")
	}
}
