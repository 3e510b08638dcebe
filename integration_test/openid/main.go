// Openid is an OpenID provider for tests: zitadel/oidc, which is certified, with
// its example's login page and storage in memory. It is a module of its own,
// because nothing that it needs belongs into the service.
//
//	openid -listen 127.0.0.1:9998 -users users.json -keys keys.json
//
// Its keys are in a file, so that it is the same issuer after a restart. It
// signs with the last of them. POST /test/rotate adds one, and with ?drop=1
// withdraws all others.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"os"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9998", "address")
	usersFile := flag.String("users", "users.json", "users, as the example has them")
	keysFile := flag.String("keys", "keys.json", "private keys; made if it does not exist")
	flag.Parse()
	users, err := storage.StoreFromFile(*usersFile)
	if err != nil {
		log.Fatal(err)
	}
	storage.RegisterClients(storage.WebClient("files", "secret", "http://localhost/callback"), storage.WebClient("mail", "secret", "http://localhost/callback"))
	s := &store{Storage: storage.NewStorage(users), users: users, file: *keysFile}
	if err := s.open(); err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + *listen
	provider := exampleop.SetupServer(issuer, s, slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	provider.Post("/test/rotate", func(w http.ResponseWriter, r *http.Request) {
		if err := s.rotate(r.FormValue("drop") != ""); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	log.Fatal(http.ListenAndServe(*listen, provider))
}

// A store is the example's, with keys that change and tokens that are JWTs.
type store struct {
	*storage.Storage
	users storage.UserStore
	file  string

	mu   sync.Mutex
	keys []jose.JSONWebKey // private; the last one signs
}

func (s *store) open() error {
	text, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s.rotate(true)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &s.keys)
}

// rotate adds a key: RSA and elliptic in turn.
func (s *store) rotate(drop bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := jose.JSONWebKey{KeyID: rand.Text(), Use: "sig", Algorithm: string(jose.RS256)}
	var err error
	if len(s.keys) > 0 && s.keys[len(s.keys)-1].Algorithm == string(jose.RS256) {
		key.Algorithm = string(jose.ES256)
		key.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key.Key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return err
	}
	if drop {
		s.keys = nil
	}
	s.keys = append(s.keys, key)
	text, err := json.Marshal(s.keys)
	if err != nil {
		return err
	}
	return os.WriteFile(s.file, text, 0o600)
}

// A key is one of the store's, public or private.
type key struct{ jose.JSONWebKey }

func (k key) ID() string  { return k.KeyID }
func (k key) Use() string { return k.JSONWebKey.Use }
func (k key) Key() any    { return k.JSONWebKey.Key }
func (k key) Algorithm() jose.SignatureAlgorithm {
	return jose.SignatureAlgorithm(k.JSONWebKey.Algorithm)
}
func (k key) SignatureAlgorithm() jose.SignatureAlgorithm { return k.Algorithm() }

func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return key{s.keys[len(s.keys)-1]}, nil
}

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []op.Key
	for _, k := range s.keys {
		keys = append(keys, key{k.Public()})
	}
	return keys, nil
}

// GetClientByClientID makes access tokens JWTs; the example's are opaque.
func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

type client struct{ op.Client }

func (client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// GetPrivateClaimsFromScopes gives access tokens roles, where Keycloak has them.
func (s *store) GetPrivateClaimsFromScopes(_ context.Context, userID, _ string, _ []string) (map[string]any, error) {
	user := s.users.GetUserByID(userID)
	if user == nil {
		return nil, fmt.Errorf("no user %s", userID)
	}
	roles := []string{}
	if user.IsAdmin {
		roles = append(roles, "staff")
	}
	return map[string]any{"realm_access": map[string]any{"roles": roles}}, nil
}
