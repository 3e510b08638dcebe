// Command link makes a link with go-jose: go run link.go link-keys.json MAKER PATH
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: link KEYS MAKER PATH")
	}
	link, err := link(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(link)
}

func link(file, maker, path string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) == 0 {
		return "", fmt.Errorf("read %s: no keys: %v", file, err)
	}
	key, now := set.Keys[len(set.Keys)-1], time.Now().Unix()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key.Key},
		(&jose.SignerOptions{}).WithType("securefiles-link+jwt").WithHeader("kid", key.KeyID))
	if err != nil {
		return "", err
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{"jti": rand.Text(), "sub": maker, "aud": "main", "path": path, "iat": now, "exp": now + 3600}).Serialize()
	return (&url.URL{Path: "/downloads" + path}).EscapedPath() + "?link=" + token, err
}
