// Makes a link with jose (npm install jose):  node link.mjs link-keys.json MAKER PATH
import { randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"
import { SignJWT, importJWK } from "jose"

const [keys, maker, path] = process.argv.slice(2)
const key = JSON.parse(readFileSync(keys, "utf8")).keys.at(-1)
const token = await new SignJWT({ jti: randomBytes(12).toString("hex"), sub: maker, aud: "main", path })
  .setIssuedAt()
  .setExpirationTime("1h")
  .setProtectedHeader({ alg: key.alg, kid: key.kid, typ: "securefiles-link+jwt" })
  .sign(await importJWK(key, key.alg))
console.log(`/downloads${path.split("/").map(encodeURIComponent).join("/")}?link=${token}`)
