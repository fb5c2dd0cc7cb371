"""What every test shares: no Prefect state outside the tests' own folder, and the optional real material."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before Prefect is imported anywhere: its database and profile belong to the test run, not to the developer.
os.environ["PREFECT_HOME"] = os.environ.get("GEOREFINE_TEST_PREFECT_HOME") or tempfile.mkdtemp(
    prefix="georefine-tests-"
)
os.environ.pop("PREFECT_API_URL", None)
os.environ["DO_NOT_TRACK"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

# The same examples in every run, so that a red test is red again; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real images and captions; a public clone has none."""
    if not REAL.is_dir():
        pytest.skip("the real material (shared/real beside the checkout) is not here")
    return REAL


@pytest.fixture(scope="session")
def mini(real: Path) -> Path:
    """A small University-1652 in the official folders, with GeoText annotations."""
    return real / "university1652-mini"
