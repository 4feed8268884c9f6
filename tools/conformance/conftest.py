"""What the checks are told of the server that they are run against, and what they tell of themselves.

`e2e/clients.model.test.ts` starts the server and the checks; `CQIL_CLIENTS` is what it gives, as JSON.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

GIVEN: dict[str, Any] = json.loads(os.environ["CQIL_CLIENTS"])

URL: str = GIVEN["url"]
KEY: str = GIVEN["key"]
# The real model in float32; in 4 bits; in 4 bits with a chat template that takes tools; and one of random weights.
EXACT: str = GIVEN["models"]["exact"]
REAL: str = GIVEN["models"]["real"]
TOOLS: str = GIVEN["models"]["tools"]
TINY: str = GIVEN["models"]["tiny"]
EXACT_FOLDER = Path(GIVEN["exactFolder"])

TESTDATA = Path(__file__).resolve().parents[2] / "testdata"

results: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A check is told of once: as failed where any part of it did."""
    name = f"{report.nodeid.split('::')[0]}: {report.location[2]}"
    if report.when == "call" or report.outcome != "passed":
        results[name] = {"name": name, "outcome": report.outcome, "text": report.longreprtext}


def pytest_sessionfinish() -> None:
    Path(GIVEN["results"]).write_text(json.dumps(list(results.values())), "utf-8")
