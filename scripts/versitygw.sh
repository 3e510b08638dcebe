#!/bin/bash
# Files of a store against a gateway that speaks S3, behind nginx. To build it takes minutes and 80 MB, so not in make test.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
GOBIN="$dir" go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
SECUREFILES_TEST_VERSITYGW="$dir/versitygw" go test -count=1 -run AGateway ./integration_test
