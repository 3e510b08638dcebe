package storage

import (
	"encoding/base64"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"securefiles/internal/storagetest"
)

// verifying are stores that verify what they are asked with by code of their own, and how
// a Store of each is made, with files and without.
func verifying(t *testing.T) map[string]func(edit func(*Options)) *Store {
	t.Helper()
	objects := map[string]string{}
	for _, name := range hostileNames() {
		objects[name] = "this is " + name
	}
	return verifyingOf(t, "", objects)
}

// verifyingWith are such stores with these objects, whose keys begin with a prefix.
func verifyingWith(t *testing.T, objects map[string]string) map[string]func(edit func(*Options)) *Store {
	t.Helper()
	return verifyingOf(t, "sub/", objects)
}

func verifyingOf(t *testing.T, prefix string, objects map[string]string) map[string]func(edit func(*Options)) *Store {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(emulatorKey)
	if err != nil {
		t.Fatal(err)
	}
	gcs, account, err := storagetest.NewGCS()
	file := filepath.Join(t.TempDir(), "account.json")
	if err == nil {
		err = os.WriteFile(file, account, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	azure := &storagetest.Azure{Account: emulatorAccount, Key: secret}
	for name, text := range objects {
		for _, o := range []*storagetest.Objects{&azure.Objects, &gcs.Objects} {
			o.Put("files", name, text)
			o.Put("other", name, "CANARY")
		}
	}
	azureServer, gcsServer := httptest.NewServer(azure), httptest.NewServer(gcs)
	t.Cleanup(azureServer.Close)
	t.Cleanup(gcsServer.Close)
	return map[string]func(func(*Options)) *Store{
		"azure": func(edit func(*Options)) *Store {
			return newTestAzure(t, azureServer.URL+"/"+emulatorAccount, func(a *Azure, o *Options) { a.Prefix = prefix; edit(o) })
		},
		"gcs": func(edit func(*Options)) *Store {
			opts := &Options{CredentialsFile: file}
			edit(opts)
			s, err := NewGCS(GCS{Bucket: "files", Endpoint: gcsServer.URL, Prefix: prefix}, opts)
			if err == nil {
				err = s.Reload(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}

// Azure's and Google's stores, as far as their documents tell: each name is its own
// object, and what was signed counts for nothing else.
func TestStoresThatVerifyTakeWhatWasSignedAndNothingElse(t *testing.T) {
	for kind, open := range verifying(t) {
		for _, redirect := range []bool{false, true} {
			s := open(func(o *Options) { o.Redirect = redirect })
			for _, name := range hostileNames() {
				for _, method := range []string{"GET", "HEAD"} {
					if status, body := fetch(t, method, upstream(t, s, method, name)); status != 200 || method == "GET" && body != "this is "+name {
						t.Errorf("%s, redirect %t, %s %q: %d %q", kind, redirect, method, name, status, body)
					}
				}
			}
			good := upstream(t, s, "GET", "plain.txt")
			_, signature, _ := strings.Cut(strings.Replace(good, "sig=", "X-Goog-Signature=", 1), "X-Goog-Signature=")
			first := string(signature[0])
			other := map[bool]string{true: "b", false: "a"}[first == "a"]
			past := open(func(o *Options) {
				o.Redirect, o.Now = redirect, func() time.Time { return time.Now().Add(-3 * time.Minute) }
			})
			for what, other := range map[string]string{
				"another object":       strings.Replace(good, "/plain.txt?", "/a%20b.txt?", 1),
				"another bucket":       strings.Replace(good, "/files/", "/other/", 1),
				"longer":               strings.NewReplacer("se=2", "se=3", "Expires=120", "Expires=999").Replace(good),
				"more rights":          strings.NewReplacer("sp=r", "sp=rwd", "SignedHeaders=host", "SignedHeaders=date").Replace(good),
				"another header":       good + "&rscd=inline&response-content-disposition=inline",
				"another signature":    strings.NewReplacer("sig="+first, "sig="+other, "Signature="+first, "Signature="+other).Replace(good),
				"no signature":         good[:strings.Index(good, "?")],
				"of three minutes ago": upstream(t, past, "GET", "plain.txt"),
			} {
				if status, body := fetch(t, "GET", other); status != 400 && status != 403 || strings.Contains(body, "this is") {
					t.Errorf("%s, redirect %t, %s: %d %q", kind, redirect, what, status, body)
				}
			}
			for method, refused := range map[string]bool{"HEAD": kind == "gcs", "PUT": true, "DELETE": true} {
				if status, body := fetch(t, method, good); (status == 403) != refused || strings.Contains(body, "this is") {
					t.Errorf("%s, redirect %t, %s of what was signed for GET: %d %q", kind, redirect, method, status, body)
				}
			}
		}
	}
}
