<?php
// Makes a link with a secret (HS256):  php link.php link-keys.json MAKER PATH
function base64url(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

[, $keys, $maker, $path] = $argv;
$key = array_slice(json_decode(file_get_contents($keys), true)['keys'], -1)[0];
$now = time();
$head = ['alg' => 'HS256', 'kid' => $key['kid'], 'typ' => 'securefiles-link+jwt'];
$claims = ['jti' => bin2hex(random_bytes(12)), 'sub' => $maker, 'aud' => 'main', 'path' => $path, 'iat' => $now, 'exp' => $now + 3600];
$signed = base64url(json_encode($head)) . '.' . base64url(json_encode($claims));
$token = $signed . '.' . base64url(hash_hmac('sha256', $signed, base64_decode(strtr($key['k'], '-_', '+/')), true));
echo '/downloads', implode('/', array_map('rawurlencode', explode('/', $path))), '?link=', $token, "\n";
