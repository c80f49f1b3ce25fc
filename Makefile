# Everything that can be done with this checkout. The work is in docker/stack/ and tests/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which PostgreSQL: 15 to 18.
export PG_MAJOR ?= 15

stack := docker/stack

.PHONY: help packages build run worker test lint bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Settings by environment: PG_SHELL_DATA (.run/), PG_SHELL_PORT (54320), PG_SHELL_HTTP_PORT (8080), PG_MAJOR (15)."

packages: ## Install what is missing to build and run (Debian packages, cargo-pgrx)
	@$(stack)/packages.sh run

build: packages ## Build the extension, the worker, the launcher and the web server into target/stage
	@$(stack)/build.sh

run: packages ## Start Postgres with pg_shell, a worker and the web server; Ctrl-C stops them
	@$(stack)/run.sh

worker: packages ## Add one more worker to a running stack
	@$(stack)/worker.sh

test: ## Lint, then run every test; nothing needs to be running
	@tests/run.sh

lint: ## Check formatting, clippy, rustdoc, SQL and shell scripts
	@$(stack)/packages.sh test
	@$(stack)/lint.sh

bench: ## Print the speed tables
	@$(stack)/packages.sh bench
	@tests/bench.sh

clean: ## Remove what was built; the data of `make run` stays
	@cargo clean
