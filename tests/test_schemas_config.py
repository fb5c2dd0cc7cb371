"""Configuration: every key validated, the offending key named, printed form reads back."""

import itertools
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Config, build, commented, config_dict, load_config
from schemas.errors import ConfigError, UsageError

ROOT = Path(__file__).resolve().parents[1]


def test_printed_configuration_reads_back() -> None:
    assert build(Config, yaml.safe_load(commented(Config()))) == Config()


def test_plain_form_reads_back() -> None:
    config = build(Config, {"augment": {"variants": 5, "rotate": False}, "seed": 3})
    assert build(Config, config_dict(config)) == config


@pytest.mark.parametrize("text", ["1e-05", "2e-3", "1.5E-4"])
def test_small_numbers_are_numbers_however_yaml_takes_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(f"train: {{weight_decay: {text}}}", encoding="utf-8")
    config = load_config(tmp_path / "c.yaml")
    assert config.train.weight_decay == float(text)
    assert build(Config, yaml.safe_load(commented(config))) == config


def test_every_printed_key_has_a_comment() -> None:
    lines = commented(Config()).splitlines()
    for before, line in itertools.pairwise(lines):
        if line.strip() and not line.strip().startswith(("#", '"')):
            assert before.strip().startswith("#"), f"no comment above {line!r}"


def test_shipped_configuration_is_the_default() -> None:
    assert load_config(ROOT / "configs" / "default.yaml") == Config()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"augment": {"variants": -1}}, "augment.variants"),
        ({"augment": {"variants": 2.5}}, "augment.variants"),
        ({"augment": {"variants": True}}, "augment.variants"),
        ({"augment": {"rotate": 1}}, "augment.rotate"),
        ({"augment": {"brightness": float("nan")}}, "augment.brightness"),
        ({"augment": {"brightness": 10**400}}, "augment.brightness"),
        ({"seed": 10**400}, "seed"),
        ({"augment": {"brightness": "much"}}, "augment.brightness"),
        ({"augment": []}, "augment"),
        ({"orientation": {"satellite": "delete"}}, "orientation.satellite"),
        ({"orientaton": {}}, "orientaton"),
        ({"train": {"epochs": 3}}, "train.epochs"),
        ({"partition": {"folders": {"street": "car"}}}, "partition.folders.street"),
        ({"partition": {"folders": {"street": 3}}}, "partition.folders"),
        ({"partition": {"flat_patterns": {"(": "drone"}}}, "partition.flat_patterns.("),
        ([], "(top)"),
    ],
)
def test_wrong_key_is_named(values: object, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Config, values)
    assert error.value.key == key
    assert key in str(error.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["augment", "variants", "seed", "train", "partition", "folders", "x"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_document_is_a_configuration_or_a_named_error(values: object) -> None:
    try:
        assert isinstance(build(Config, values), Config)
    except ConfigError as error:
        assert str(error).startswith("Configuration key")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "augment: [unclosed", r"is not valid YAML \(line 1, column 19: expected ',' or '\]'"),
        ("a.json", '{"seed": ]}', r"is not valid YAML \(line 1, column 10"),
        ("a.yaml", "- seed", "holds a list, not keys with values"),
        ("a.yaml", "[" * 100_000, "is not valid YAML"),
        ("a.yaml", "seed: \x00", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as error:
        load_config(path)
    assert str(error.value).startswith(f"The configuration {path} ")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read \(No such file or directory\): mend it"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"# caf\xe9\nseed: 1")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_json_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"seed": 9}', encoding="utf-8")
    assert load_config(tmp_path / "c.json").seed == 9
