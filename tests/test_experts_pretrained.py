"""BGE-M3 and EVA02-CLIP: the architectures, at reduced depth and with random weights; see docs/encoders.md."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experts.pretrained import ImageEncoder, TextEncoder, Tokens, load_image, load_text, weights_hash
from schemas.errors import TrainingError

pytestmark = pytest.mark.usefixtures("vision")

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *["a", "white", "tower", "with", "flat", "roof", "and", "trees", "beside", "the", "road", ".", "grass", "car"],
    "<mask>",
]
TEXTS = ["a white tower with a flat roof and trees beside the road .", "grass", "", "the road and a car"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words that frames a text as XLM-RoBERTa's does: <s> … </s>, padding 1."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(
        [AddedToken(word, special=True) for word in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    )
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    frame: Any = PreTrainedTokenizerFast
    frame(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)


def small_text_config(**changes: Any) -> Any:
    from transformers import XLMRobertaConfig

    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
    }
    return XLMRobertaConfig(**{**sizes, **changes})


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory, vision: None) -> Path:
    from transformers import XLMRobertaModel

    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    XLMRobertaModel(small_text_config(initializer_range=0.3)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def whole_text(folder: Path, tokens: Tokens) -> Tensor:
    """CLS of the whole model, as transformers computes it."""
    from transformers import XLMRobertaModel

    model: Any = XLMRobertaModel.from_pretrained(folder)
    model.eval()
    with torch.no_grad():
        hidden: Tensor = model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    return hidden[:, 0]


@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_text_trunk_and_tail_are_the_whole_model(text_folder: Path, layers: int) -> None:
    encoder = load_text(str(text_folder), layers=layers, max_length=32)
    tokens = encoder.tokenize(TEXTS)
    hidden = encoder.trunk(tokens)
    assert hidden.shape == (4, tokens.ids.shape[1], encoder.width)
    assert hidden.dtype == torch.float32
    cls = encoder.tail()(hidden, tokens.mask)
    torch.testing.assert_close(cls.detach(), whole_text(text_folder, tokens), atol=1e-5, rtol=0)
    assert cls.std() > 0.1  # the weights are not so small that everything is alike


def test_padding_changes_no_row(text_folder: Path) -> None:
    encoder = load_text(str(text_folder), layers=2, max_length=32)
    tail = encoder.tail()
    together = encoder.tokenize(TEXTS)
    joint = tail(encoder.trunk(together), together.mask)
    for row, text in enumerate(TEXTS):
        alone = encoder.tokenize([text])
        torch.testing.assert_close(tail(encoder.trunk(alone), alone.mask)[0], joint[row], atol=1e-5, rtol=0)


def test_texts_are_cut_framed_and_never_special(text_folder: Path) -> None:
    encoder = load_text(str(text_folder), layers=1, max_length=8)
    tokens = encoder.tokenize(["the road " * 50, "grass </s> <pad> <mask> car", "\ud800 \0 é"])
    assert tokens.ids.shape == (3, 8)
    assert (tokens.ids[:, 0] == WORDS.index("<s>")).all()
    for ids, mask in zip(tokens.ids.tolist(), tokens.mask.tolist(), strict=True):
        used = [i for i, real in zip(ids, mask, strict=True) if real]
        assert [used[0], used[-1]] == [0, 2]
        assert not {0, 1, 2, WORDS.index("<mask>")} & set(used[1:-1])
    assert encoder.trunk(tokens).isfinite().all()
    assert len(encoder.tokenize([])) == 0


def test_weights_as_the_hub_has_them_are_read(text_folder: Path, tmp_path: Path) -> None:
    """BAAI/bge-m3 is a pytorch_model.bin, with a pooler that nobody uses and other heads in files beside it."""
    from safetensors.torch import load_file

    shutil.copytree(text_folder, tmp_path, dirs_exist_ok=True)
    first = load_text(str(text_folder), layers=2, max_length=32)
    state = load_file(tmp_path / "model.safetensors")
    assert "pooler.dense.weight" in state
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1, 32)}, tmp_path / "sparse_linear.pt")
    second = load_text(str(tmp_path), layers=2, max_length=32)
    assert weights_hash(second) == weights_hash(first)


@pytest.mark.parametrize(("layers", "max_length"), [(5, 16), (-1, 16), (2, 39), (2, 1)])
def test_text_refuses_what_the_weights_do_not_have(text_folder: Path, layers: int, max_length: int) -> None:
    with pytest.raises(TrainingError, match=r"4 layers|2 to 38 tokens"):
        load_text(str(text_folder), layers=layers, max_length=max_length)


def test_text_trunk_stays_frozen_and_the_tail_learns(text_folder: Path) -> None:
    encoder = load_text(str(text_folder), layers=2, max_length=32)
    tails = nn.ModuleList([encoder.tail() for _ in range(3)])
    whole = nn.ModuleList([encoder, tails]).train()
    assert tails.training
    assert not any(module.training for module in encoder.modules())
    tokens = encoder.tokenize(TEXTS)
    torch.testing.assert_close(encoder.trunk(tokens), encoder.trunk(tokens), atol=0, rtol=0)
    tails.eval()
    tails[0](encoder.trunk(tokens), tokens.mask).square().sum().backward()
    learned = {name for name, p in whole.named_parameters() if p.grad is not None}
    assert learned == {name for name, _ in whole.named_parameters() if name.startswith("1.0.")}
    assert learned
    original = next(encoder.last.parameters())
    before = original.clone()
    with torch.no_grad():
        next(tails[0].parameters()).add_(1.0)
    assert torch.equal(before, original)
    assert not torch.equal(next(tails[0].parameters()), next(tails[1].parameters()))


def test_text_identity_follows_weights_words_length_and_split_only(text_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(text_folder, moved)

    def digest(folder: Path, layers: int = 2, max_length: int = 32) -> str:
        encoder = load_text(str(folder), layers=layers, max_length=max_length)
        encoder.tokenize(TEXTS)
        return encoder.identity("cls", torch.bfloat16).digest(encoder.width)

    first = digest(text_folder)
    assert digest(moved) == first
    assert digest(text_folder, layers=1) != first
    assert digest(text_folder, max_length=16) != first
    path = moved / "tokenizer.json"
    words = json.loads(path.read_text())
    words["model"]["vocab"]["tower"], words["model"]["vocab"]["roof"] = (
        words["model"]["vocab"]["roof"],
        words["model"]["vocab"]["tower"],
    )
    path.write_text(json.dumps(words))
    assert digest(moved) != first


def without_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "layer.3.output" not in k}, folder / "model.safetensors", {"format": "pt"}
    )


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def with_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(nn.Linear(2, 2), folder / "pytorch_model.bin")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half the weights": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:5000]
    ),
    "a layer missing": without_layer,
    "code in the weights": with_code,
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "empty tokenizer files": lambda folder: [path.write_bytes(b"") for path in folder.glob("*token*")],
    "no tokenizer": without_tokenizer,
    "another architecture": lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_text_weights_are_refused_in_one_sentence(text_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(text_folder, folder)
    DAMAGES[damage](folder)
    with pytest.raises(TrainingError, match=r"hf download BAAI/bge-m3") as caught:
        load_text(str(folder), layers=2, max_length=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_text, load_image])
def test_an_absent_path_names_what_to_download(load: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"hf download (BAAI|timm)/"):
        load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("load", [load_text, load_image])
def test_a_hub_name_without_network_names_what_to_download(
    load: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainingError, match=r"cannot be loaded .*hf download (BAAI|timm)/"):
        load("nobody/nothing")


def small_eva(size: int = 28, depth: int = 4, patch: int = 7, seed: int = 0) -> Any:
    """A reduced EVA02-CLIP tower by timm, with weights large enough that every part of it shows in the output."""
    import timm

    torch.manual_seed(seed)
    model = timm.create_model(
        "eva02_large_patch14_clip_224",
        img_size=size,
        patch_size=patch,
        depth=depth,
        embed_dim=128,
        num_heads=2,
        num_classes=0,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def save_eva(model: Any, path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)
    return path


def pixels(size: int, n: int = 3) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def clip_input(values: Tensor) -> Tensor:
    """The obvious twin of the encoder's normalisation."""
    from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    mean = torch.tensor(OPENAI_CLIP_MEAN)[None, :, None, None]
    return (values.float() / 255 - mean) / torch.tensor(OPENAI_CLIP_STD)[None, :, None, None]


@pytest.mark.parametrize("blocks", [0, 1, 2, 4])
def test_image_trunk_and_tail_are_the_whole_tower(tmp_path: Path, blocks: int) -> None:
    model = small_eva()
    encoder = load_image(str(save_eva(model, tmp_path / "eva.safetensors")), size=28, blocks=blocks)
    images = pixels(28)
    tokens = encoder.trunk(images)
    assert tokens.shape == (3, encoder.tokens, encoder.width)
    with torch.no_grad():
        expected = model(clip_input(images))
        pooled = encoder.tail()(tokens)
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_image_tower_at_224_with_its_own_patch(tmp_path: Path) -> None:
    model = small_eva(size=224, patch=14, depth=2)
    encoder = load_image(str(save_eva(model, tmp_path / "eva.safetensors")), size=224, blocks=1)
    images = pixels(224, 1)
    with torch.no_grad():
        torch.testing.assert_close(encoder.tail()(encoder.trunk(images)), model(clip_input(images)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [42, 45])
def test_positions_are_interpolated_to_another_size(tmp_path: Path, size: int) -> None:
    model = small_eva(size=28)
    encoder = load_image(str(save_eva(model, tmp_path / "eva.safetensors")), size=size, blocks=2)
    assert encoder.tokens == 37
    images = pixels(size)
    model.set_input_size(img_size=(42, 42))
    seen = clip_input(images)
    if size != 42:  # 45 is no multiple of the patch
        seen = F.interpolate(seen, size=(42, 42), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(encoder.tail()(encoder.trunk(images)), model(seen), atol=1e-4, rtol=0)


def test_rope_reaches_trunk_and_tail(tmp_path: Path) -> None:
    encoder = load_image(str(save_eva(small_eva(), tmp_path / "eva.safetensors")), size=28, blocks=2)
    tail, tokens = encoder.tail(), encoder.trunk(pixels(28))
    with torch.no_grad():
        turned = tail(tokens)
        tail.rope.zero_()
        assert (tail(tokens) - turned).abs().max() > 1e-3
    assert "rope" not in tail.state_dict()  # it follows from the size of the images


def test_image_trunk_stays_frozen_and_the_tail_learns(tmp_path: Path) -> None:
    encoder = load_image(str(save_eva(small_eva(), tmp_path / "eva.safetensors")), size=28, blocks=2)
    tails = nn.ModuleList([encoder.tail() for _ in range(3)])
    whole = nn.ModuleList([encoder, tails]).train()
    assert not any(module.training for module in encoder.modules())
    tails[1](encoder.trunk(pixels(28))).square().sum().backward()
    learned = {name for name, p in whole.named_parameters() if p.grad is not None}
    # Only the class token is pooled, but the last block's keys and values see every token.
    assert learned == {name for name, _ in whole.named_parameters() if name.startswith("1.1.")}


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names -> those of the EVA-CLIP repository's own files, with their text tower and fixed rotations."""
    pairs = [
        ("attn.norm", "attn.inner_attn_ln"),
        ("mlp.norm", "mlp.ffn_ln"),
        ("mlp.fc1_g", "mlp.w1"),
        ("mlp.fc1_x", "mlp.w2"),
        ("mlp.fc2", "mlp.w3"),
        ("q_proj.bias", "q_bias"),
        ("v_proj.bias", "v_bias"),
    ]
    renamed = {}
    for name, value in state.items():
        for ours, theirs in pairs:
            name = name.replace(ours, theirs)  # noqa: PLW2901
        renamed[f"visual.{name}"] = value
    renamed["visual.head.weight"] = torch.zeros(8, 128)
    renamed["visual.blocks.0.attn.rope.freqs_cos"] = torch.zeros(16, 64)
    renamed["text.positional_embedding"] = torch.zeros(4, 4)
    renamed["logit_scale"] = torch.tensor(2.0)
    return renamed


@pytest.mark.parametrize("naming", ["timm", "open_clip", "eva-clip", "wrapped"])
def test_the_three_namings_of_weights_are_understood(tmp_path: Path, naming: str) -> None:
    model = small_eva()
    state: dict[str, Any] = {**model.state_dict(), "head.weight": torch.zeros(8, 128), "head.bias": torch.zeros(8)}
    if naming == "open_clip":
        state = {f"visual.trunk.{name}": value for name, value in state.items()}
    elif naming == "eva-clip":
        state = openai_names(model.state_dict())
    elif naming == "wrapped":
        state = {"state_dict": state}
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    encoder = load_image(str(path), size=28, blocks=1)
    with torch.no_grad():
        images = pixels(28)
        torch.testing.assert_close(encoder.tail()(encoder.trunk(images)), model(clip_input(images)), atol=1e-4, rtol=0)
    assert encoder.name == "eva02-clip-4x128-7"


def test_a_folder_with_weights_is_enough(tmp_path: Path) -> None:
    save_eva(small_eva(), tmp_path / "model.safetensors")
    assert load_image(str(tmp_path), size=28, blocks=1).width == 128


@pytest.mark.parametrize("damage", ["cut", "a block short", "no tower", "code", "empty folder", "too small"])
def test_damaged_image_weights_are_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    path, size = tmp_path / "weights.pt", 28
    state = small_eva().state_dict()
    if damage == "a block short":
        state = {name: value for name, value in state.items() if not name.startswith("blocks.1.attn")}
    torch.save(state, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:10_000])
    elif damage == "no tower":
        torch.save({"weight": torch.zeros(2)}, path)
    elif damage == "code":
        torch.save({"pos_embed": nn.Linear(2, 2)}, path)
    elif damage == "empty folder":
        path = tmp_path / "empty"
        path.mkdir()
    elif damage == "too small":
        size = 6
    with pytest.raises(TrainingError, match=r"hf download timm/|no whole patch") as caught:
        load_image(str(path), size=size, blocks=1)
    assert "\n" not in str(caught.value)


def test_image_refuses_more_blocks_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has 4 blocks"):
        load_image(str(save_eva(small_eva(), tmp_path / "eva.safetensors")), size=28, blocks=5)


def test_image_identity_follows_weights_size_and_split(tmp_path: Path) -> None:
    first, other = (
        save_eva(small_eva(), tmp_path / "a.safetensors"),
        save_eva(small_eva(seed=1), tmp_path / "b.safetensors"),
    )

    def digest(path: Path, size: int = 28, blocks: int = 1, dtype: torch.dtype = torch.bfloat16) -> str:
        encoder = load_image(str(path), size=size, blocks=blocks)
        return encoder.identity("cls", dtype).digest(encoder.width)

    digests = [
        digest(first),
        digest(other),
        digest(first, size=35),
        digest(first, blocks=2),
        digest(first, dtype=torch.float32),
    ]
    assert len(set(digests)) == 5
    assert digest(first) == digests[0]
    state = small_eva().state_dict()
    state["norm.weight"] = state["norm.weight"] * 2  # of the tails, but adapters keep what comes after it
    torch.save(state, tmp_path / "c.pt")
    assert digest(tmp_path / "c.pt") != digests[0]


def test_weights_hash_sees_every_value_and_name() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two)
    with torch.no_grad():
        two.bias[1] += 1e-6
    assert weights_hash(one) != weights_hash(two)
    assert weights_hash(nn.Sequential(one)) != weights_hash(one)


class NoWords:
    """A tokenizer that is never asked, for shapes on the meta device."""

    padding_side = truncation_side = "right"


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_an_expert_of_the_real_shapes_has_77_million_parameters() -> None:
    """The published number; counted on torch's meta device, where weights take no memory."""
    import timm
    from transformers import XLMRobertaModel

    bge_m3 = small_text_config(
        vocab_size=250_002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
    )
    with torch.device("meta"):
        text = TextEncoder(XLMRobertaModel(bge_m3, add_pooling_layer=False), NoWords(), layers=2, max_length=512)
        eva = timm.create_model("eva02_large_patch14_clip_336", num_classes=0, img_size=378)
        image = ImageEncoder(eva, size=384, blocks=4)
        projection = nn.Linear(image.width, 1024, bias=False)
    assert (text.width, image.width, image.tokens) == (1024, 1024, 27 * 27 + 1)
    assert text.name == "xlm-roberta-24x1024"
    assert image.name == "eva02-clip-24x1024-14"
    expert = parameters(text.tail()) + parameters(image.tail()) + parameters(projection)
    assert expert == pytest.approx(77e6, rel=0.01)
    assert parameters(text) == pytest.approx(567e6, rel=0.01)
    assert parameters(image) == pytest.approx(304e6, rel=0.01)


def test_the_module_is_imported_without_timm_and_transformers() -> None:
    code = (
        "import sys; import experts.pretrained; "
        "print(sorted({'timm', 'transformers', 'torchvision', 'safetensors', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("library", "load"), [("transformers", load_text), ("timm", load_image)])
def test_an_absent_library_is_named(
    library: str, load: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(TrainingError, match=f"needs {library}, .*pip install"):
        load("anything")
