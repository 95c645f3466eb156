"""Order of the test files, and the test files that need something this repository does not hold."""

import os
from pathlib import Path

from infra.settings import CHECKOUT

TESTS = Path(__file__).parents[1]
STREAMS = CHECKOUT.parent / "shared" / "data" / "canonical"
"""Labelled payments of third parties. They are in no repository: put them beside the project to run their tests."""
VERSITYGW = os.environ.get("FRAUDCASE_VERSITYGW", "")
"""Path of the Versitygw program, a Go program that no Python package installs."""
OPTIONAL = {
    "console/test_streams.py": STREAMS.is_dir(),
    "projections/archive/test_object_lock.py": bool(VERSITYGW),
}
"""Test files that need data or a program from elsewhere, and whether it is here."""
LONGEST = (
    "test_pages", "test_streams", "test_replay", "test_web_fuzz", "test_risk", "test_expression", "test_planted",
    "test_case_model", "test_explain", "test_web_access", "test_evidence",
)  # fmt: skip
"""Names of the test files that take longest, slowest first."""
