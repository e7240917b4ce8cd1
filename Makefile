# Everything a contributor types. `make` prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
BIN := .venv/bin
# BLAS threads beyond the cores make the small CPU runs of tests and demo several times slower.
export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## --- set up

.PHONY: setup
setup: .venv/.installed ## Make .venv with `finetune` and everything else in its bin/

.venv/.installed: requirements/dev.txt operator/pyproject.toml images/trainer/pyproject.toml images/merger/pyproject.toml images/server/pyproject.toml devcluster/pyproject.toml
	@# On standard error throughout: `eval "$$(make cluster)"` must see one line only.
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv >&2
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet 'uv>=0.8' >&2
	@echo "installing the locked requirements (torch brings CUDA: about 6 GB)" >&2
	@$(BIN)/uv pip install --python $(BIN)/python --requirements requirements/dev.txt >&2
	@touch $@

.PHONY: binaries
binaries: setup ## Build (once, then cached) kube-apiserver, etcd, kubectl, helm and the like from their Go modules
	@ln -sf "$$($(BIN)/devcluster binaries)"/{kubectl,helm} $(BIN)/

## --- try it

.PHONY: demo
demo: binaries ## Train, merge and serve a tiny model on a real control plane, and ask it who it is (KEEP=1 leaves it running)
	$(BIN)/python -m finetune_devcluster.demo $(if $(KEEP),--keep)

.PHONY: cluster
cluster: binaries ## Start the devcluster with the operator installed; prints the line that exports its KUBECONFIG
	@$(BIN)/devcluster up --operator --gpus 8

.PHONY: cluster-down
cluster-down: ## Stop the devcluster
	@$(BIN)/devcluster down

## --- test

.PHONY: test
test: lint types unit parts integration security faults chain ## Everything that CI runs

.PHONY: unit
unit: setup ## Unit tests, in seconds
	$(BIN)/pytest --numprocesses auto tests/unit

.PHONY: parts
parts: setup ## Single parts with real servers and processes, on every core
	$(BIN)/pytest --numprocesses auto tests/parts
	TRITON_INTERPRET=1 $(BIN)/pytest --numprocesses auto tests/interpreted

.PHONY: integration
integration: binaries ## Tests against a real control plane and the real training code
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/integration

.PHONY: faults
faults: setup ## Training that is killed, stopped, hung and starved of disk, in short
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not campaign" tests/faults

.PHONY: campaign
campaign: setup ## The same at length: every method, then 100 SIGKILLs and 50 SIGTERMs at random moments of a 200-step run
	$(BIN)/pytest -m campaign tests/faults
	$(BIN)/python tests/faults/kill_campaign.py --kills 100 --terms 50

.PHONY: chart
chart: binaries ## Everything about the chart and GitOps: lint, renders, drift, alerts; then installs, upgrades and syncs on a real control plane
	"$$($(BIN)/devcluster binaries)"/helm lint --strict charts/finetune-operator
	$(BIN)/pytest --numprocesses auto tests/unit/test_chart_*.py tests/unit/test_argocd_health.py tests/unit/test_plan_kstatus.py tests/unit/test_shell_metrics.py
	$(BIN)/pytest tests/integration/test_chart_*.py tests/integration/test_gitops.py

.PHONY: security
security: binaries ## Attacks: by what a job says, by its model and data, and on what serves it
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/security

.PHONY: chain
chain: binaries ## The whole chain on a process node, from kubectl apply to an answered chat, with faults on the way
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/chain

.PHONY: e2e
e2e: binaries ## The README's install and both tutorials on a real kubelet, with the images built here; or on the cluster of E2E_CONTEXT= (docs/e2e.md)
	$(if $(E2E_CONTEXT),,tests/e2e/machine.sh)
	$(BIN)/pytest --timeout 3600 tests/e2e

.PHONY: lint
lint: setup ## Style, formatting and the layers of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.PHONY: lint-manifests
lint-manifests: binaries ## kube-score over the rendered chart and every child of a job (builds kube-score from its Go module, once)
	PYTHONPATH=tests/support $(BIN)/python tests/support/kube_score.py

.PHONY: audit
audit: setup ## Look for holes: in the code with bandit, in the locked requirements with pip-audit (needs the public index)
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive operator/src images/*/src devcluster/src
	$(BIN)/python requirements/audit.py

.PHONY: types
types: setup ## mypy, strict
	$(BIN)/mypy

.PHONY: format
format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## --- images

IMAGES ?= operator trainer merger server

.PHONY: images
images: ## Build the images with buildah, podman or docker (REGISTRY=, TAG=, VARIANT=cpu, BASE_IMAGE=…: docs/images.md); prints their names
	@images/build.sh $(IMAGES)

.PHONY: images-check
images-check: setup ## Run the built images as pods do: any user id, no capabilities, read-only root; from a dataset to an answer
	$(BIN)/pytest tests/images

## --- generate

.PHONY: crds
crds: setup ## Generate crds/, the chart's copy and docs/api.md from the pydantic models
	$(BIN)/python -m finetune_operator.api.crd crds/finetunejobs.yaml charts/finetune-operator/files/crds/finetunejobs.yaml
	$(BIN)/python -m finetune_operator.api.reference docs/api.md

.PHONY: manifests
manifests: crds binaries ## Generate the chart's schema and deploy/ (for kubectl apply -k)
	$(BIN)/python -m finetune_operator.chart_schema
	{ echo '# The chart rendered with its defaults by `make manifests`. Do not edit.'; \
	  "$$($(BIN)/devcluster binaries)"/helm template finetune-operator charts/finetune-operator \
	    --namespace finetune-operator --skip-tests --set crds.install=false; \
	} > deploy/operator.yaml.tmp
	mv deploy/operator.yaml.tmp deploy/operator.yaml

.PHONY: performance
performance: setup ## Write docs/performance.md's tables and pictures from bench/results
	$(BIN)/python bench/report.py

.PHONY: lock
lock: setup ## Lock the newest versions of all dependencies that the floors allow
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --no-emit-index-url --no-emit-find-links \
	  --no-header --no-annotate requirements/dev.in --output-file requirements/dev.txt
	requirements/lock-images.sh

.PHONY: lock-images
lock-images: setup ## Lock what each image installs to those versions (TORCH_INDEX=URL of PyTorch's CPU wheels locks the CPU variant too)
	requirements/lock-images.sh
