# make demo   a running example: nginx, the service, files, a policy, commands to try
# make test   every check and every test; installs what is missing
# make bench  benchmarks of decisions, and rates through nginx
# make fuzz   fuzzing, FUZZTIME each target

SHELL := /bin/bash
FUZZTIME ?= 60s
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: build demo test lint bench fuzz vulncheck clean

build:
	go build -trimpath -o bin/securefiles .

demo: build
	./scripts/install.sh nginx curl openssl
	./examples/demo/demo.sh

test: lint
	./scripts/install.sh nginx curl openssl django
	go test -race -shuffle=on -timeout 12m ./...

lint:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

bench:
	./scripts/install.sh nginx curl openssl wrk
	go test -run '^$$' -bench . -benchmem ./...
	./bench/endtoend.sh
	./bench/identity.sh

# Each target in turn: go test fuzzes one at a time.
fuzz:
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

# Needs the vulnerability database, so continuous integration does not depend on it.
vulncheck:
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...

clean:
	rm -rf bin
