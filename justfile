# One line each; `just` lists them. All need uv.

_default:
    @just --list

# everything that must hold before a change is merged
ci:
    .ci/run

# the tests; arguments go to pytest: just test tests/unit/core -x
test *arguments:
    uv run pytest {{arguments}}

# lint, format, types and layers
check:
    uv run ruff check && uv run ruff format --check && uv run mypy && uv run lint-imports

# put the source into shape
format:
    uv run ruff check --fix && uv run ruff format

# look for new counter-examples: just search tests/property/test_frames.py
search *arguments:
    HYPOTHESIS_PROFILE=thorough uv run pytest {{arguments}}

# what the tests reach, line by line, in htmlcov/
coverage:
    uv run coverage erase && uv run coverage run -m pytest -q && uv run coverage combine -q && uv run coverage html

# write the pages that follow from the code, and check the whole site
docs:
    uv run python docs/build.py && NO_MKDOCS_2_WARNING=1 uv run mkdocs build --strict

# a simulated factory and the pipeline
demo *arguments:
    uv run headrace demo {{arguments}}

# CPU time per sample over the whole path
throughput *arguments:
    uv run headrace bench throughput {{arguments}}

# kill the pipeline at random moments and count what is lost
recovery *arguments:
    uv run headrace bench recovery {{arguments}}
