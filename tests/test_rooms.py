"""The arrows between the rooms: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "schemas": set(),
    "data": {"schemas"},
    "refine": {"schemas"},
    "augment": {"schemas"},
    "experts": {"schemas", "data.shards"},
    "review": {"schemas", "data", "refine", "experts"},
    "flows": {"schemas", "data", "refine", "augment", "experts", "review"},
    "georefine": {"schemas", "data", "refine", "augment", "experts", "review", "flows"},
}


def imports(path: Path) -> list[str]:
    """Every absolute module name that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the room"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_rooms_below(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"room {room} is empty"
    for path in files:
        for name in imports(path):
            if name.partition(".")[0] in MAY_IMPORT.keys() - {room}:
                allowed = any(name == a or name.startswith(f"{a}.") for a in MAY_IMPORT[room])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_only_flows_imports_prefect() -> None:
    for room in MAY_IMPORT.keys() - {"flows"}:
        for path in (ROOT / room).rglob("*.py"):
            assert not [n for n in imports(path) if n.partition(".")[0] == "prefect"], path


def test_nobody_imports_vllm() -> None:
    for room in MAY_IMPORT:
        for path in (ROOT / room).rglob("*.py"):
            assert not [n for n in imports(path) if n.partition(".")[0] == "vllm"], path


def test_every_module_says_what_it_is_for() -> None:
    for room in MAY_IMPORT:
        for path in (ROOT / room).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(MAY_IMPORT)
