"""What every test shares: no Prefect state outside the tests' own folder, and the optional real material."""

import atexit
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before Prefect is imported anywhere: its database and profile belong to the test run, not to the developer.
if kept := os.environ.get("GEOREFINE_TEST_PREFECT_HOME"):
    os.environ["PREFECT_HOME"] = kept
else:
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="georefine-tests-")
    atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` shall leave nothing behind, as Ctrl-C does
    # A shell that starts tests in the background lets them, and the commands they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("PREFECT_API_URL", None)
os.environ["DO_NOT_TRACK"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

# The same examples in every run, so that a red test is red again; HYPOTHESIS_PROFILE=explore looks for new ones. None
# fails for being slow: the machine may be busy.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
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


@pytest.fixture(scope="session")
def vision() -> Iterator[None]:
    """Make timm and transformers importable where torchvision's compiled operators do not fit torch.

    There is no CPU build of torchvision in package registries: with the CPU build of torch the one that pip finds fails
    at import, for want of two operators that nobody here calls. Declared, they are enough.
    """
    library = None  # the operators vanish with it
    try:
        import_module("torchvision")
    except ImportError:
        pytest.skip("the encoders' packages (timm, torchvision, transformers) are not installed")
    except RuntimeError:
        import torch

        declare: Any = torch.library.Library
        library = declare("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")
    yield
    del library
