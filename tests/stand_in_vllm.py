"""An environment whose `vllm` is a script of the test's own: what vLLM might do, without a model."""

import venv
from pathlib import Path


def stand_in_environment(home: Path, entrypoint: str, code: str) -> str:
    """Make the environment, with `code` as `vllm.entrypoints.openai.<entrypoint>`; returns its interpreter."""
    venv.create(home, with_pip=False, symlinks=True)
    package = next((home / "lib").glob("python*")) / "site-packages" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / f"{entrypoint}.py").write_text(code)
    return str(home / "bin" / "python")
