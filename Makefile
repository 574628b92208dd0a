# slipway: the targets that people and CI use. `make help` lists them.
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

GO         ?= go
KUBERNETES := v1.36.3
REGISTRY   := https://registry.k8s.io/v2/
# Arguments for `slipway init` in `make up`, for example INIT='--pod-network-cidr 10.244.0.0/16'.
INIT       ?=
FUZZTIME   ?= 30s
# One version for `make flags`: 1.34, 1.35, 1.36 or etcd; all when empty.
ONLY       ?=
E2E        := ./cmd/internal/e2e/... ./cmd/internal/podtest/... ./runtime/...

.PHONY: build
build: ## build bin/slipway, static and stripped
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/slipway ./cmd/slipway

.PHONY: test
test: build ## run all tests: unit, golden and CLI with the race detector; as root on Linux the end-to-end ones too
	$(GO) test -race ./...
	@if [ "$$(uname -s)" = Linux ] && [ "$$(id -u)" = 0 ]; then \
		$(MAKE) --no-print-directory programs && \
		$(GO) test -tags e2e -p 1 -count=1 -timeout 60m $(E2E); \
	else echo "not root on Linux: the end-to-end tests did not run"; fi

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@for package in $$($(GO) list ./runtime/...); do \
		for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$package"; \
		done; \
	done

.PHONY: lint
lint: ## vet and staticcheck, the end-to-end tests and the benchmark too
	$(GO) vet ./...
	$(GO) vet -tags e2e,bench ./...
	$(GO) tool staticcheck -tags e2e,bench ./...

.PHONY: images
images: ## get the control plane's images where no registry answers: build them from Go modules into bin/images
	@if curl -sSf --max-time 3 -o /dev/null $(REGISTRY) 2>/dev/null; then \
		echo "the registry answers: slipway init pulls the images from it"; \
	elif [ -e bin/images/kube-apiserver.tar ] && [ bin/images/kube-apiserver.tar -nt testdata/images/kubernetes/go.sum ]; then \
		echo "no registry answers: using the images in bin/images"; \
	else \
		echo "no registry answers: building the images of Kubernetes $(KUBERNETES) from Go modules (several minutes the first time)"; \
		cd testdata/images && $(GO) run . -out ../../bin/images -programs ../../bin/k8s; \
	fi

.PHONY: programs
programs: ## build the images, kube-proxy, CoreDNS, kubectl, kubeadm and kubelet that the end-to-end tests and the benchmark use
	cd testdata/images && $(GO) run . -all -out ../../bin/images -programs ../../bin/k8s -addons ../../bin/addons

.PHONY: up
up: runtime build images ## turn this machine into a control-plane node (as root)
	bin/slipway init --image-archives "$(CURDIR)/bin/images" $(INIT)
	@kubectl=$$(command -v kubectl || true); \
	echo; echo "Use the cluster:"; \
	echo "  export KUBECONFIG=/etc/kubernetes/admin.conf"; \
	echo "  $${kubectl:-bin/k8s/kubectl} get --raw '/readyz?verbose'"; \
	echo "  bin/slipway status"; \
	echo "Take it away again: make down"

.PHONY: runtime
runtime:
	@[ "$$(id -u)" = 0 ] || { echo "make up must run as root"; exit 1; }
	@if ! command -v containerd >/dev/null || ! command -v runc >/dev/null; then \
		echo "installing containerd and runc from the distribution"; \
		if command -v apt-get >/dev/null; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends containerd runc >/dev/null; \
		elif command -v dnf >/dev/null; then dnf install -y -q containerd runc; \
		else echo "install containerd and runc, then run make up again"; exit 1; fi; \
	fi

.PHONY: down
down: ## take the control plane away again (as root)
	bin/slipway reset --force

.PHONY: bench
bench: build programs ## measure slipway against kubeadm and a real kubelet on this machine, and print the table
	$(GO) test -tags bench -count=1 -timeout 60m -v ./cmd/internal/bench/

.PHONY: generate
generate: ## write docs/cli from the commands
	$(GO) run ./cmd/internal/gendocs docs/cli

.PHONY: flags
flags: ## ask the control-plane programs of each supported version for their flags (minutes), and write phases/flags/known
	cd testdata/images && $(GO) run ./flags -out ../../phases/flags/known $(if $(ONLY),-only $(ONLY))

.PHONY: verify
verify: ## check formatting, lint, go.mod and that generated files are current
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l $$(git ls-files '*.go')); \
	[ -z "$$unformatted" ] || { echo "$$unformatted"; echo "run gofmt -w on these"; exit 1; }
	$(MAKE) --no-print-directory lint
	$(GO) mod tidy -diff
	cd testdata/images && $(GO) vet ./... && $(GO) mod tidy -diff
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(GO) run ./cmd/internal/gendocs "$$tmp" && diff -Naur docs/cli "$$tmp" || { echo "run make generate"; exit 1; }

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-10s %s\n", $$1, $$2 }'
