# make demo   a running example: nginx, the service, files in a directory and in a bucket, a policy, commands to try
# make test   every check and every test; installs what is missing
# make bench  benchmarks of decisions, and rates through nginx, which write tables and charts of docs/performance.md and docs/sizing.md
# make fuzz   a million comparisons with stock Casbin, then fuzzing, FUZZTIME each target
# make mutate mistakes derived from the code that decides, made one at a time: do the tests notice?
# make diff   what diff tells against asking everything, on PAIRS pairs of policies
# make bench-audit  a search of the record beside grep -F on the same file, of AUDIT_LINES lines, 650 bytes each
# make soak   DURATION seconds at half of what the service can take, with all that comes and goes: does anything grow?
# make soak-policy  ten million questions of a policy: does memory grow?
# make azurite        signatures for Azure against Microsoft's emulator
# make versitygw      files in a bucket of versitygw's, a gateway that speaks S3, behind nginx
# make packages       deb, rpm, OCI image and list of contents for amd64 and arm64, and the Helm chart, in dist
# make chaos          each fault of docs/resilience.md, or those of FAULT, ROUNDS times under load: its answers, and no file that policy does not allow; writes the table
# make chaos-audit    the service killed 200 times under 1,000 downloads a second, restarted 50 times under 5,000: has each file that was sent its records?
# make chaos-links    the service killed LINK_KILLS times while 20 want the one use of a link, and one of two instances, and their Redis, while 200 do: is it used once?
# make limits-load    two instances on one Redis, 65 seconds of load: are requests, bytes and downloads within 1 % of what limits say?
# make audit-chain    1,000 changes of a chain of a million records: is each found?
# make test-packages  are they the same bytes built twice; installed, upgraded and purged in a bare Debian (as root)
# make release        the packages of the tag that is checked out, and their digests

SHELL := /bin/bash
FUZZTIME ?= 60s
# Worlds (a model, a policy, some fourteen requests) to compare, and where to begin; 0 is anywhere.
WORLDS ?= 80000
SEED ?= 0
PAIRS ?= 6000
AUDIT_LINES ?= 10000000
LINK_KILLS ?= 200
# How often each fault strikes, and on how many sites at a time; and which, by a regular expression for their names.
ROUNDS ?= 20
FAULT ?= .
AT_ONCE ?= 3
DURATION ?= 3600
export PATH := $(PATH):/usr/sbin:/sbin
# What `securefiles version` tells: by git, or as given on the command line.
VERSION ?= $(shell ./scripts/version.sh)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS = -X securefiles/internal/cli.version=$(VERSION) -X securefiles/internal/cli.commit=$(COMMIT)

.PHONY: build demo test lint bench bench-audit fuzz mutate diff soak soak-policy limits-load chaos chaos-audit chaos-links audit-chain azurite versitygw vulncheck clean go packages test-packages release

build: go
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/securefiles .

# Is Go new enough? Older ones say something else.
go:
	@./scripts/go.sh

demo: go
	./scripts/install.sh certificates curl openssl
	@./scripts/install.sh nginx || echo "nginx cannot be installed: the service sends the files itself" >&2
	@$(MAKE) --no-print-directory build
	go build -o bin/demo-bucket ./examples/demo/bucket
	./examples/demo/demo.sh

test: go
	./scripts/install.sh certificates cc nginx curl openssl django pyjwt git zsh fish xmllint postgresql promtool rsyslogd redis-server apache2 lighttpd caddy mkfs.ext4 losetup 'chromium?'
	@$(MAKE) --no-print-directory lint
	go test -race -shuffle=on -timeout 30m ./...
	go test -short -run 'AllocateOnce$$' -bench . -benchtime 1x -timeout 10m ./... > /dev/null # do they still run?

lint: go
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go tool staticcheck ./...

bench: go
	./scripts/install.sh certificates nginx curl openssl wrk redis-server strace h2load apache2 django gunicorn
	go test -run '^$$' -bench . -skip '^Benchmark(Decide|Stock|Alike|Load|Reload)$$' -benchmem ./...
	./bench/page.sh
	./bench/latency.sh
	./bench/policy.sh
	./bench/state.sh
	./bench/scale.sh
	./bench/store.sh
	./bench/audit.sh
	./bench/http2.sh

# Then each target in turn: go test fuzzes one at a time.
fuzz: go
	go test -run TestStockDecidesTheSame -v -timeout 2h ./policy/internal/engine -rapid.checks=$(WORLDS) -rapid.seed=$(SEED)
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

mutate: go
	go run ./scripts/mutate $(MUTATE)

diff: go
	go test -run TestCompareMissesNothing -v -timeout 2h ./policy/explain -rapid.checks=$(PAIRS) -rapid.seed=$(SEED)
	SECUREFILES_TEST_LONG=1 go test -run TestCompareOf -v -timeout 1h ./policy/explain

limits-load: go
	./scripts/install.sh certificates nginx redis-server
	SECUREFILES_LIMITS_SECONDS=65 go test -count=1 -run TestLimitsUnderLoad -v -timeout 10m ./integration_test

# In a temporary directory, TMPDIR.
bench-audit: go
	SECUREFILES_AUDIT_LINES=$(AUDIT_LINES) go test -run TestSearchIsHalfAsFastAsGrep -v -timeout 1h ./internal/audit

soak: go
	./scripts/install.sh certificates nginx
	SECUREFILES_SOAK_SECONDS=$(DURATION) go test -count=1 -run 'TestSoak$$' -v -timeout 5h ./integration_test

soak-policy: go
	SECUREFILES_SOAK=10000000 go test -run TestMemoryDoesNotGrow -v -timeout 1h ./policy

chaos: go
	./scripts/install.sh certificates cc nginx postgresql redis-server
	SECUREFILES_CHAOS_ROUNDS=$(ROUNDS) SECUREFILES_CHAOS_AT_ONCE=$(AT_ONCE) SECUREFILES_CHAOS_TABLE=$(CURDIR)/docs/resilience.md go test -count=1 -run 'TestChaos$$/($(FAULT))' -v -timeout 2h ./integration_test

chaos-audit: go
	./scripts/install.sh certificates nginx
	SECUREFILES_AUDIT_KILLS=200 SECUREFILES_AUDIT_RESTARTS=50 go test -count=1 -run 'TestAuditLosesNothing|TestAuditHasEachDelivery' -v -timeout 1h ./integration_test

chaos-links: go
	./scripts/install.sh certificates nginx redis-server
	SECUREFILES_LINK_KILLS=$(LINK_KILLS) go test -count=1 -run 'TestUsedLinkStaysUsed|TestOneUse' -v -timeout 1h ./integration_test

audit-chain: go
	SECUREFILES_AUDIT_CHAIN=1000000 go test -count=1 -run TestEachChangeOfAChain -v -timeout 4h ./internal/audit

# Needs the vulnerability database, so continuous integration does not depend on it.
azurite: go
	./scripts/azurite.sh

versitygw: go
	./scripts/install.sh certificates nginx
	./scripts/versitygw.sh

vulncheck: go
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...

packages: go
	VERSION='$(VERSION)' COMMIT='$(COMMIT)' ./packaging/build.sh dist
	cd dist && sha256sum securefiles[-_]* > SHA256SUMS

release: go
	./packaging/release.sh

test-packages: go
	./scripts/install.sh certificates nginx openssl curl ip debootstrap systemd-nspawn lintian
	./packaging/test.sh

clean:
	rm -rf bin dist
