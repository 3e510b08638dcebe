package storage

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The account of Microsoft's emulator, which is public.
const emulatorAccount, emulatorKey = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

func emulatorEnviron(name string) (string, bool) { return emulatorKey, name == "AZURE_STORAGE_KEY" }

func newTestAzure(t *testing.T, endpoint string, edit ...func(*Azure, *Options)) *Store {
	t.Helper()
	container, opts := Azure{Account: emulatorAccount, Container: "files", Endpoint: endpoint}, &Options{Lookup: emulatorEnviron}
	for _, e := range edit {
		e(&container, opts)
	}
	s, err := NewAzure(container, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAzureSignaturesAreThoseOfTheSDK(t *testing.T) {
	text, err := os.ReadFile("testdata/azure_sas.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Name, Disposition, CacheControl, Signature string }
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) < 10 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	s := newTestAzure(t, "http://127.0.0.1:10000/devstoreaccount1")
	for _, row := range rows {
		r := request{method: "GET", key: row.Name, at: at("2026-11-27T09:00:00Z")(), lifetime: 2 * time.Minute}
		if row.Disposition != "" {
			r.headers = &headers{row.Disposition, row.CacheControl}
		}
		signed, err := s.signer.sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.Query().Get("sig"); got != row.Signature || u.Path != "/devstoreaccount1/files/"+row.Name {
			t.Errorf("%q: %s, want the signature %s", row.Name, signed, row.Signature)
		}
	}
}

func TestWhatIsNoContainerIsRefused(t *testing.T) {
	for _, row := range []struct {
		option string
		edit   func(*Azure)
	}{
		{"account", func(c *Azure) { c.Account = "" }},
		{"account", func(c *Azure) { c.Account = "evil.example/" }},
		{"container", func(c *Azure) { c.Container = "a/b" }},
		{"container", func(c *Azure) { c.Container = "a--b" }},
		{"endpoint", func(c *Azure) { c.Endpoint = "https://azure.example.org/$x" }},
		{"endpoint", func(c *Azure) { c.Endpoint = "http://azure.example.org" }},
		{"prefix", func(c *Azure) { c.Prefix = "/" }},
	} {
		c := Azure{Account: "account", Container: "files"}
		row.edit(&c)
		var option *OptionError
		if _, err := NewAzure(c, nil); !errors.As(err, &option) || option.Option != row.option {
			t.Errorf("%+v: %v", c, err)
		}
	}
	s, err := NewAzure(Azure{Account: "account", Container: "$web"}, nil)
	if want := (Endpoint{Scheme: "https", Host: "account.blob.core.windows.net", Path: "/%24web/", NoSuffix: true}); err != nil || s.Endpoint() != want {
		t.Errorf("%+v, %v", s.Endpoint(), err)
	}
	file := filepath.Join(t.TempDir(), "key")
	for text, good := range map[string]bool{emulatorKey + "\r\n": true, "": false, "no base64!": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newTestAzure(t, "", func(_ *Azure, o *Options) { o.CredentialsFile = file })
		if err := s.Reload(t.Context()); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// azurite is where Microsoft's emulator listens: `make azurite` runs it, and this test.
const azurite = "SECUREFILES_TEST_AZURITE"

func TestAzureEmulatorTakesTheSignatures(t *testing.T) {
	endpoint := os.Getenv(azurite)
	if endpoint == "" {
		t.Skip("`make azurite` runs this test")
	}
	s := newTestAzure(t, endpoint)
	emulate(t, http.MethodPut, endpoint+"/files?restype=container", "")
	for _, name := range hostileNames() {
		emulate(t, http.MethodPut, endpoint+"/files/"+escape(name), "this is "+name)
	}
	for mode, redirect := range map[string]bool{"proxy": false, "redirect": true} {
		s := newTestAzure(t, endpoint, func(_ *Azure, o *Options) { o.Redirect = redirect })
		for _, name := range hostileNames() {
			if status, body := fetch(t, "GET", upstream(t, s, "GET", name)); status != 200 || body != "this is "+name {
				t.Errorf("%s, %q: %d %q", mode, name, status, body)
			}
			if status, _ := fetch(t, "HEAD", upstream(t, s, "HEAD", name)); status != 200 {
				t.Errorf("%s, HEAD %q: %d", mode, name, status)
			}
		}
	}
	good := upstream(t, s, "GET", "plain.txt")
	for name, other := range map[string]string{
		"another blob":      strings.Replace(good, "/plain.txt?", "/a%20b.txt?", 1),
		"longer":            strings.Replace(good, "se=", "se=2", 1),
		"more rights":       strings.Replace(good, "sp=r", "sp=rwd", 1),
		"another header":    good + "&rscd=inline",
		"no signature":      good[:strings.Index(good, "?")],
		"three minutes ago": upstream(t, newTestAzure(t, endpoint, func(_ *Azure, o *Options) { o.Now = func() time.Time { return time.Now().Add(-3 * time.Minute) } }), "GET", "plain.txt"),
	} {
		if status, body := fetch(t, "GET", other); status < 400 || strings.Contains(body, "this is") {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	if status, _ := fetch(t, "DELETE", good); status < 400 {
		t.Errorf("DELETE: %d", status)
	}
	if err := s.Try(t.Context()); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	wrong := newTestAzure(t, endpoint, func(_ *Azure, o *Options) { o.Lookup = func(string) (string, bool) { return "c2VjcmV0", true } })
	if err := wrong.Try(t.Context()); err == nil || !strings.Contains(err.Error(), "the key of the account is wrong") {
		t.Errorf("another key: %v", err)
	}
}

// emulate writes to the emulator with the key of its account (Microsoft, "Authorize with
// shared key").
func emulate(t *testing.T, method, target, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	date := time.Now().UTC().Format(http.TimeFormat)
	req.Header.Set("X-Ms-Date", date)
	req.Header.Set("X-Ms-Version", "2020-12-06")
	special := "x-ms-date:" + date + "\nx-ms-version:2020-12-06\n"
	resource := "/" + emulatorAccount + req.URL.EscapedPath()
	length := ""
	if text != "" {
		req.Header.Set("X-Ms-Blob-Type", "BlockBlob")
		special = "x-ms-blob-type:BlockBlob\n" + special
		length = strconv.Itoa(len(text))
	} else {
		resource += "\nrestype:container"
	}
	key, err := base64.StdEncoding.DecodeString(emulatorKey)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join([]string{method, "", "", length, "", "", "", "", "", "", "", "", special + resource}, "\n")))
	req.Header.Set("Authorization", "SharedKey "+emulatorAccount+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusConflict {
		t.Fatalf("%s %s: %s", method, target, resp.Status)
	}
}
