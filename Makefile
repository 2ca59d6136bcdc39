# Targets and their meaning are fixed in docs/reference/interface.md; operators' scripts rely on them.
SHELL := /bin/sh
VENV := .venv
ARGS ?=
# An empty value counts as unset, here too; one in .env does not.
ifeq ($(AIGW_ENVIRONMENT)$(shell LC_ALL=C grep -Eso '^[^!-Z]*AIGW_ENVIRONMENT[[:blank:]]*=[[:blank:]]*.?[[:alnum:]]+' .env),)
export AIGW_ENVIRONMENT := development
endif

.PHONY: setup dev run test lint bench drills clients demo-model extras lock

setup:
	@sh tools/setup requirements.lock

dev: setup
	@sh tools/setup requirements-dev.lock

run: setup
	@exec $(VENV)/bin/torana serve $(ARGS)

test: dev
	@env -u AIGW_ENVIRONMENT $(VENV)/bin/python -m pytest -n 3 $(ARGS); \
	code=$$?; echo $$code > $(VENV)/.tests-ended; exit $$code

lint: dev
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/python tools/dependencies.py

bench: dev
	@env -u AIGW_ENVIRONMENT $(VENV)/bin/python -m bench $(ARGS)

drills: dev
	@env -u AIGW_ENVIRONMENT $(VENV)/bin/python -m pytest -m drill $(ARGS)

clients: dev
	@sh tests/clients/node/run $(ARGS)

demo-model: setup
	@sh tools/setup requirements-demo-model.lock

# Credentials of clouds (AWS, Google, Azure), the PostgreSQL sink, and exact token counts with models' own tokenizers.
extras: setup
	@sh tools/setup requirements-extras.lock

# For maintainers: resolves anew. Needs uv.
lock:
	@sh tools/lock
