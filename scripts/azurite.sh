#!/bin/bash
# Signatures for Azure against Microsoft's emulator, which npm gets: 190 MB, so not in make test.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
port=${AZURITE_PORT:-17999}
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund azurite@3.35.0
node "$dir/node_modules/azurite/dist/src/blob/main.js" --blobHost 127.0.0.1 --blobPort "$port" --location "$dir/data" --silent --disableTelemetry --skipApiVersionCheck &
pid=$!
for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.2
done
SECUREFILES_TEST_AZURITE="http://127.0.0.1:$port/devstoreaccount1" go test -count=1 -run Emulator ./internal/storage
