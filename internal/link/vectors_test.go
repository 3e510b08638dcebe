package link

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

var updateVectors = flag.Bool("update-vectors", false, "write testdata/vectors.json anew, by keys and payloads that stand in it")

// vectors are what other implementations can be held to.
type vectors struct {
	Version int                `json:"version"`
	Keys    jose.JSONWebKeySet `json:"keys"`
	// Now is when all of it is judged.
	Now   time.Time `json:"now"`
	Links []vector  `json:"links"`
	None  []vector  `json:"none"`
}

// A vector is a token; its header and payload are there to be read.
type vector struct {
	Name    string `json:"name"`
	Header  string `json:"header,omitempty"`
	Payload string `json:"payload,omitempty"`
	Reason  string `json:"reason,omitempty"` // of what is no link
	Token   string `json:"token"`
}

// The specification's vectors are as they say.
func TestVectorsOfTheSpecification(t *testing.T) {
	const file = "testdata/vectors.json"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if *updateVectors {
		for _, list := range [][]vector{v.Links, v.None} {
			for i, one := range list {
				if one.Payload == "" {
					continue // a token as it stands
				}
				key := v.Keys.Keys[0]
				if strings.Contains(one.Header, `"ed25519"`) {
					key = v.Keys.Keys[1]
				}
				list[i].Token = tokenOf(t, key, one.Header, one.Payload)
			}
		}
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := New(keysOf(t, v.Keys.Keys...), &Options{Now: func() time.Time { return v.Now }})
	if err != nil {
		t.Fatal(err)
	}
	if v.Version != 1 || len(v.Links) < 4 || len(v.None) < 10 {
		t.Fatalf("version %d, %d links, %d that are none", v.Version, len(v.Links), len(v.None))
	}
	for _, one := range v.Links {
		p, err := ask(l, one.Token)
		if err != nil || p.Scope == nil {
			t.Errorf("%s: %+v, %v", one.Name, p, err)
			continue
		}
		c, err := l.Read(one.Token)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(c.written()); err != nil || !sameJSON(t, string(got), one.Payload) {
			t.Errorf("%s: claims %s, want %s", one.Name, got, one.Payload)
		}
	}
	for _, one := range v.None {
		if _, err := ask(l, one.Token); err == nil || reasonOf(err) != authz.Reason(one.Reason) {
			t.Errorf("%s: %v, want %s", one.Name, err, one.Reason)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var sorted [2]string
	for i, text := range []string{a, b} {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		sorted[i] = string(out)
	}
	return sorted[0] == sorted[1]
}
