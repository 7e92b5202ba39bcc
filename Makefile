# Everything here is a script in scripts/, for who has no make.

.PHONY: help up test bench check generate kind kind-down

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-9s %s\n' "$$name" "$$what"; done
	@echo '  ARGS="…" is handed on, for example: make up ARGS="--data-dir /tmp/cornjacket"'

up: ## Build the platform and run it here, with the sample resources
	@exec scripts/up $(ARGS)

test: ## Run every test, on real services started for it
	@exec scripts/test $(ARGS)

bench: ## Measure speed, on this machine
	@exec scripts/bench $(ARGS)

check: ## Check format, lints, dependencies, generated files and charts
	@exec scripts/check

generate: ## Write the generated files anew
	@exec scripts/generate

kind: ## Run the platform in a local Kubernetes cluster (kind), with the sample resources
	@exec scripts/kind up

kind-down: ## Remove that cluster with everything in it
	@exec scripts/kind down
