# Two commands do all: `make demo` and `make test`. Both set up .venv in the checkout first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CAMPAIGN ?= build/campaign
COMPILE := --quiet --all-extras --no-annotate --no-header pyproject.toml

.PHONY: demo demo-sharepoint ui docs screenshots test lint campaign sbom lock clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[simulation,cpu,test]'
	touch $(STAMP)

demo: $(STAMP)  ## simulated drives through the whole graph
	$(BIN)/drive-assets demo

demo-sharepoint: $(STAMP)  ## recordings that arrive in a local stand-in for SharePoint, taken by the sensor
	$(BIN)/python -m drive_assets_tests.demo_sharepoint

ui: $(STAMP)  ## Dagster and MLflow on loopback
	$(BIN)/drive-assets ui

screenshots: $(STAMP)  ## the pictures of the documentation, from the demo's data, with chromium and chromedriver
	$(BIN)/python -m drive_assets_tests.browser.screenshots

docs: $(STAMP)  ## the documentation as a site, in site/
	$(BIN)/python -W ignore -m drive_assets_tests.documentation.reference > docs/configuration.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open $(CURDIR)/site/index.html"

lint: $(STAMP)  ## style and types
	$(BIN)/ruff format --check drive_assets model drive_assets_tests benchmarks examples
	$(BIN)/ruff check drive_assets model drive_assets_tests benchmarks examples
	$(BIN)/mypy

test: lint  ## all checks
	$(BIN)/dagster definitions validate -m drive_assets.definitions
	$(BIN)/dg check defs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

campaign: $(STAMP)  ## random kills and malformed inputs, 20 and 80: see docs/reliability.md
	$(BIN)/python -m drive_assets_tests.campaign kills --folder $(CAMPAIGN)/kills
	$(BIN)/python -m drive_assets_tests.campaign inputs --number 80 --folder $(CAMPAIGN)/inputs

sbom: $(STAMP)  ## bill of materials (CycloneDX) and licences of what is installed, in build/
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[release]'
	mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python
	$(BIN)/pip-licenses --format=markdown --with-urls --output-file=build/licences.md

lock: $(STAMP)  ## constraints.txt and requirements.lock, with hashes, from what is installed and was tested
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[release]'
	mkdir -p build
	$(BIN)/pip freeze --exclude-editable > build/installed.txt
	$(BIN)/uv pip compile $(COMPILE) --constraint build/installed.txt --output-file constraints.txt
	$(BIN)/uv pip compile $(COMPILE) --constraint constraints.txt --generate-hashes --output-file requirements.lock

clean:  ## removes the virtual environment, not the data
	rm -rf $(VENV)
