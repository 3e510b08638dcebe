// Package storagetest has stores of objects for tests, in process: of Azure's kind and of
// Google's, which verify what they are asked with.
//
// Each makes the text that was signed out of the request that came, as the provider's
// documents say, and has no code in common with what signs. They know as much of the
// protocols as downloads need: GET and HEAD of an object, one range, conditions, and
// lists by prefix and slash. As the
// real ones they take no notice of If-Range.
package storagetest

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Modified is when each object was changed last.
var Modified = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// Objects are what a store holds, by container or bucket and name: `files/a/b.txt`. The
// zero value is empty. They are safe for concurrent use.
type Objects struct {
	mu    sync.Mutex
	texts map[string]string
}

// Put adds an object, or takes its place.
func (o *Objects) Put(container, name, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.texts == nil {
		o.texts = map[string]string{}
	}
	o.texts[container+"/"+name] = text
}

// send sends an object, or what of it was asked for.
func (o *Objects) send(w http.ResponseWriter, r *http.Request, path string) {
	o.mu.Lock()
	text, ok := o.texts[path]
	o.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "there is no "+path)
		return
	}
	if strings.Contains(r.Header.Get("Range"), ",") {
		refuse(w, http.StatusNotImplemented, "several ranges")
		return
	}
	r.Header.Del("If-Range")
	sum := sha256.Sum256([]byte(text))
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	h.Set("Etag", `"`+hex.EncodeToString(sum[:8])+`"`)
	for name, as := range map[string]string{"Content-Disposition": "rscd", "Cache-Control": "rscc"} {
		query := r.URL.Query()
		if value := query.Get(as) + query.Get("response-"+strings.ToLower(name)); value != "" {
			h.Set(name, value)
		}
	}
	http.ServeContent(w, r, "", Modified, strings.NewReader(text))
}

// refuse answers with an error in the form of a store's, which nobody else may see.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version='1.0'?><Error>CANARY of the store: %s</Error>", why) // to whoever still listens
}

// An Azure is an account of Azure Blob Storage, which is asked by service SAS of version
// 2020-12-06 (Microsoft, "Create a service SAS").
type Azure struct {
	Account string
	Key     []byte
	Objects Objects
}

// ServeHTTP answers as the account's own host, or with the account as the first part of
// the path.
func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/"), a.Account+"/")
	query, err := url.ParseQuery(r.URL.RawQuery)
	one := func(name string) string {
		if len(query[name]) > 1 {
			err = fmt.Errorf("%s twice", name)
		}
		return query.Get(name)
	}
	text := strings.Join([]string{
		one("sp"), one("st"), one("se"), "/blob/" + a.Account + "/" + path, one("si"), one("sip"), one("spr"), one("sv"), one("sr"), one("snapshot"), one("ses"),
		one("rscc"), one("rscd"), one("rsce"), one("rscl"), one("rsct"),
	}, "\n")
	mac := hmac.New(sha256.New, a.Key)
	mac.Write([]byte(text))
	given, notBase64 := base64.StdEncoding.DecodeString(one("sig"))
	end, noTime := time.Parse(time.RFC3339, one("se"))
	lists := one("restype") == "container" && one("comp") == "list" && r.Method == http.MethodGet
	resource, right := "b", "r"
	if lists {
		resource, right = "c", "l"
	}
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, err.Error())
	case r.Header.Get("Authorization") != "":
		refuse(w, http.StatusBadRequest, "credentials twice")
	case one("sv") != "2020-12-06" || one("sr") != resource || notBase64 != nil || !hmac.Equal(given, mac.Sum(nil)):
		refuse(w, http.StatusForbidden, "the signature is not that of "+text)
	case noTime != nil || !time.Now().Before(end):
		refuse(w, http.StatusForbidden, "it has expired")
	case r.Method != http.MethodGet && r.Method != http.MethodHead || !strings.Contains(one("sp"), right):
		refuse(w, http.StatusForbidden, "no right for "+r.Method)
	case r.TLS == nil && !slices.Contains(strings.Split(one("spr"), ","), "http"):
		refuse(w, http.StatusForbidden, "it is for https alone")
	case strings.HasPrefix(r.Header.Get("Range"), "bytes=-"): // as the emulator
		refuse(w, http.StatusInternalServerError, "the end of a blob")
	case lists:
		a.list(w, path, query)
	default:
		a.Objects.send(w, r, path)
	}
}

// A GCS is Google Cloud Storage, which is asked by URLs that a service account has signed
// (Google, "V4 signing process with your own program").
type GCS struct {
	Email   string
	Key     *rsa.PublicKey
	Objects Objects
}

// NewGCS returns a store with the key of a new service account, and that as a file has it.
func NewGCS() (store *GCS, account []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	store = &GCS{Email: "files@example.org", Key: &key.PublicKey}
	account, err = json.Marshal(map[string]string{"client_email": store.Email, "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))})
	return store, account, err
}

// ServeHTTP answers as the host that was asked.
func (g *GCS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	signature, notHex := hex.DecodeString(query.Get("X-Goog-Signature"))
	var asked []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if !strings.HasPrefix(pair, "X-Goog-Signature=") {
			asked = append(asked, pair)
		}
	}
	slices.Sort(asked)
	date := query.Get("X-Goog-Date")
	at, noTime := time.Parse("20060102T150405Z", date)
	seconds, noNumber := strconv.Atoi(query.Get("X-Goog-Expires"))
	if noTime != nil || noNumber != nil {
		refuse(w, http.StatusBadRequest, "no time")
		return
	}
	scope := date[:8] + "/auto/storage/goog4_request"
	host, _, _ := strings.Cut(r.Host, ":")
	canonical := sha256.Sum256([]byte(r.Method + "\n" + r.URL.EscapedPath() + "\n" + strings.Join(asked, "&") + "\nhost:" + host + "\n\nhost\nUNSIGNED-PAYLOAD"))
	digest := sha256.Sum256([]byte("GOOG4-RSA-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(canonical[:])))
	switch now := time.Now(); {
	case r.Header.Get("Authorization") != "":
		refuse(w, http.StatusBadRequest, "credentials twice")
	case query.Get("X-Goog-Credential") != g.Email+"/"+scope || query.Get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" || query.Get("X-Goog-SignedHeaders") != "host":
		refuse(w, http.StatusForbidden, "other credentials")
	case notHex != nil || rsa.VerifyPKCS1v15(g.Key, crypto.SHA256, digest[:], signature) != nil:
		refuse(w, http.StatusForbidden, "the signature is wrong")
	case now.Before(at) || !now.Before(at.Add(time.Duration(seconds)*time.Second)):
		refuse(w, http.StatusForbidden, "it has expired")
	case query.Get("list-type") == "2" && r.Method == http.MethodGet:
		g.list(w, strings.TrimPrefix(r.URL.Path, "/"), query)
	default:
		g.Objects.send(w, r, strings.TrimPrefix(r.URL.Path, "/"))
	}
}
