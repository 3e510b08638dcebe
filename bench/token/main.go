// Token makes a key, writes its public half as a JWKS, and prints a token that
// is good for a day, for bench/page.sh: token ES256 keys.json
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: token ES256|RS256 JWKS-FILE")
	}
	algorithm := os.Args[1]
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64(fmt.Appendf(nil, `{"alg":%q,"kid":"1","typ":"JWT"}`, algorithm)) + "." +
		b64(fmt.Appendf(nil, `{"iss":"bench","aud":"files","sub":"alice","exp":%d,"realm_access":{"roles":["staff","sales","offline_access"]}}`, time.Now().Add(24*time.Hour).Unix()))
	sum := sha256.Sum256([]byte(input))
	var key string
	var signature []byte
	switch algorithm {
	case "ES256":
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		point, err := private.PublicKey.Bytes() // 4, x, y
		must(err)
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		must(err)
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		key = fmt.Sprintf(`"kty":"EC","crv":"P-256","x":%q,"y":%q`, b64(point[1:33]), b64(point[33:]))
	case "RS256":
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		must(err)
		signature, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
		must(err)
		key = fmt.Sprintf(`"kty":"RSA","e":"AQAB","n":%q`, b64(private.N.Bytes()))
	default:
		log.Fatalf("no algorithm %q", algorithm)
	}
	must(os.WriteFile(os.Args[2], fmt.Appendf(nil, `{"keys":[{"kid":"1",%s}]}`, key), 0o644))
	fmt.Println(input + "." + b64(signature))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
