"""The command `georefine`. Every room is imported inside the command that needs it, so that `--help` is instant.

Exit codes: 0 done, 1 the work failed, 2 wrong usage. Errors are one sentence on stderr; `--debug` adds the traceback.
"""

import json
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TextIO

import typer

from schemas import __version__
from schemas.errors import GeorefineError, UsageError

if TYPE_CHECKING:
    from refine.refinement import Stream
    from schemas.config import Config
    from schemas.records import Platform as PlatformName

INTERRUPTED = "interrupted; nothing unfinished is visible, run the same command again to go on."

app = typer.Typer(
    name="georefine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Training data for retrieving geo-referenced images by sentence: rebuild University-1652 / GeoText-1652 into "
    "clean, platform-aligned Parquet shards, train a mixture of platform experts on them, and score it.\n\n"
    "Start with: georefine demo",
    epilog="Everywhere: --version, --debug (traceback of an error). Set NO_COLOR=1 for output without colour.",
)


class Platform(StrEnum):
    """The three platforms an image is taken from."""

    satellite = "satellite"
    drone = "drone"
    ground = "ground"


class Refiner(StrEnum):
    """Who rewrites captions."""

    rules = "rules"
    vllm = "vllm"


class Runner(StrEnum):
    """Where shards are made."""

    processes = "processes"
    threads = "threads"
    dask = "dask"
    ray = "ray"


class Device(StrEnum):
    """Where training runs."""

    cpu = "cpu"
    cuda = "cuda"


class Status(StrEnum):
    """What became of a caption."""

    refined = "refined"
    fallback = "fallback"
    kept = "kept"
    empty = "empty"
    edited = "edited"
    rejected = "rejected"


class AnySplit(StrEnum):
    """A part of the data set."""

    train = "train"
    val = "val"
    test = "test"


class Split(StrEnum):
    """A part of the data set that is scored."""

    test = "test"
    val = "val"


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder with train/ and test/ in the University-1652 or GeoText-1652 layout, or its URL: s3://…, gs://….",
    ),
]
Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="A data set, or one version inside it: DATASET/v0002. Path or URL.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `georefine train` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
DatasetOut = Annotated[
    str, typer.Option("--out", help="The data set to add a version to: path or URL (s3://…, gs://…).")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file; `georefine config` prints every key with its default.")
]
RefinerOption = Annotated[Refiner | None, typer.Option(help="Who rewrites captions; default: as configured.")]
VllmUrl = Annotated[
    list[str] | None,
    typer.Option("--vllm-url", metavar="URL", help="A vLLM server; repeat it for replicas. None: one is started."),
]
VllmPython = Annotated[
    Path | None,
    typer.Option("--vllm-python", metavar="EXE", help="Python that has vLLM; default: .venv-vllm of `make vllm`."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Folder or hub name of the model that rewrites captions.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else goes to stderr.")]


def _config(path: Path | None, **overrides: dict[str, Any]) -> "Config":
    """The configuration file, with options of the command line on top: _config(file, train={"seed": 3})."""
    from schemas.config import build, config_dict, load_config

    values = config_dict(load_config(path))
    for section, keys in overrides.items():
        values[section] |= {key: value for key, value in keys.items() if value is not None}
    return build(type(load_config(None)), values)


def _refining(
    path: Path | None, refiner: Refiner | None, urls: list[str] | None, python: Path | None, model: str | None
) -> "Config":
    """The configuration with the options on top that say who rewrites captions, and where."""
    given = {"refiner": refiner.value if refiner else None, "model": model}
    # Not resolved: the link is what makes it a virtual environment.
    where = {"urls": tuple(urls) if urls else None, "python": str(python.absolute()) if python else None}
    settings = _config(path, refine=given, server=where)
    if settings.refine.refiner == "rules" and (urls or python or model):
        raise UsageError("--vllm-url, --vllm-python and --model are for --refiner vllm: add it, or leave them out.")
    return settings


def _print_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))


@contextmanager
def _flow() -> Iterator[None]:
    """A Prefect API to talk to, and our progress shown while a flow runs."""
    from flows.progress import listening
    from flows.server import prefect_api
    from georefine.progress import reporting

    with prefect_api(), reporting() as report, listening(report):
        yield


def _here(dataset: str) -> Path:
    """What a data set is read from on this machine."""
    from data.remote import local_dataset
    from georefine.progress import reporting

    with reporting() as report:
        return local_dataset(dataset, report)


@app.command()
def demo(
    out: Out = Path("demo"),
    refiner: Annotated[
        Refiner, typer.Option(help="Who rewrites captions; vllm serves a tiny model that comes with georefine.")
    ] = Refiner.rules,
    vllm_url: VllmUrl = None,
    vllm_python: VllmPython = None,
    model: ModelName = None,
    buildings: Annotated[
        int, typer.Option(min=16, help="Buildings of the sample world, one eighth of them unseen.")
    ] = 912,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another world.")] = 7,
) -> None:
    """Sample world -> rebuild -> verify -> train -> scores, in one go (DIR/source, DIR/dataset, DIR/run)."""
    from georefine.demo import run_demo, tiny_model

    if refiner == Refiner.vllm and not vllm_url and not model:
        model = tiny_model()
    config = _refining(None, refiner, vllm_url, vllm_python, model)
    with _flow():
        report = run_demo(out, config, buildings=buildings, seed=seed)
    from georefine.show import show_demo

    show_demo(report)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    buildings: Annotated[int, typer.Option(min=2, help="Buildings, one eighth of them unseen in training.")] = 912,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another world.")] = 7,
) -> None:
    """Write a sample world in the official University-1652 / GeoText-1652 layout."""
    from data.campus import write_world
    from georefine.progress import reporting

    with reporting() as report:
        world = write_world(
            folder, buildings=buildings, seed=seed, progress=lambda done, total: report("sample", done, total, "")
        )
    for split, counts in (("train", world.train), ("test", world.test)):
        print(f"{split}: {counts.buildings} buildings, {counts.images} images, {counts.captions} captions")
    print(
        f"ceiling of recall@1 over the test queries: {world.ceiling['all']['r1']:.1f} % (see {folder / 'campus.json'})"
    )


@app.command()
def rebuild(
    source: Source,
    out: DatasetOut,
    config: ConfigFile = None,
    refiner: RefinerOption = None,
    vllm_url: VllmUrl = None,
    vllm_python: VllmPython = None,
    model: ModelName = None,
    runner: Annotated[
        Runner, typer.Option(help="Where shards are made; dask and ray for those who outgrow one machine.")
    ] = Runner.processes,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of the Dask scheduler or Ray head; without it one is started here."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be reused, made and dropped, and why.")
    ] = False,
    finish_with_what_we_have: Annotated[
        bool,
        typer.Option(
            "--finish-with-what-we-have", help="Ask no model; captions without an accepted reply fall back to rules."
        ),
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Remove all but so many newest versions, and none that a checkpoint names."),
    ] = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file again, whatever its size, time and inode say.")
    ] = False,
) -> None:
    """Turn a source folder into a new version of a data set; rows read = rows written + rows rejected with a reason."""
    from schemas.config import config_dict

    settings = config_dict(_refining(config, refiner, vllm_url, vllm_python, model))
    if plan:
        from flows.progress import listening
        from flows.rebuild import plan_rebuild
        from georefine.progress import reporting

        with reporting() as report, listening(report):
            planned = plan_rebuild(source, out, settings, rehash=rehash)
        print("\n".join(planned))
        return
    from flows.rebuild import rebuild as run_rebuild

    with _flow():
        result = run_rebuild(
            source,
            out,
            settings,
            runner.value,
            cluster=cluster,
            finish_with_what_we_have=finish_with_what_we_have,
            keep=keep,
            rehash=rehash,
        )
    from georefine.show import show_rebuild

    show_rebuild(result)


@app.command()
def verify(dataset: Dataset, as_json: Json = False) -> None:
    """Check every checksum, schema, count, reference and leak between splits; exit 1 and a list when wrong."""
    from data.remote import as_stored
    from data.verify import verify as check
    from georefine.progress import reporting

    with reporting() as report, as_stored(dataset, report) as folder:
        findings = check(folder)
    try:
        if as_json:
            _print_json([{"check": f.check, "where": f.where, "problem": f.problem} for f in findings])
        else:
            for finding in findings:
                print(f"{finding.check}: {finding.where}: {finding.problem}")
            if not findings:
                print(f"{dataset}: every check passed.")
    finally:  # also when nobody reads the list to its end
        if findings:
            raise typer.Exit(1)


@app.command()
def inspect(
    dataset: Dataset,
    platform: Annotated[Platform | None, typer.Option(help="Captions of this platform only.")] = None,
    status: Annotated[Status | None, typer.Option(help="Captions of this status only.")] = None,
    split: Annotated[AnySplit | None, typer.Option(help="Captions of this split only; default: train first.")] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many captions.")] = 10,
) -> None:
    """Captions from raw to stripped to refined, with what was removed, in the terminal or down a pipe."""
    from georefine.inspect import show

    show(
        _here(dataset),
        platform.value if platform else None,
        status.value if status else None,
        number,
        split=split.value if split else None,
    )


@app.command()
def review(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A data set; its newest version is reviewed. Path or URL.")
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="A trained run: shows what the model makes of a caption."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8652,
) -> None:
    """Inspect and correct refined captions on a web page; the next rebuild honours every decision."""
    from data.remote import local_folder
    from georefine.progress import reporting
    from review.server import serve as run_review

    with reporting() as report:
        folder = local_folder(dataset, report)
    run_review(folder, run, host, port)


@app.command()
def diff(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A data set with both versions in it. Path or URL.")
    ],
    before: Annotated[str, typer.Argument(metavar="VERSION_A", help="Name of a version, such as v0001.")],
    after: Annotated[str, typer.Argument(metavar="VERSION_B", help="Name of another, such as v0002.")],
    as_json: Json = False,
) -> None:
    """Captions that changed between two versions: text, status, new ones, lost ones."""
    from data.diff import changes
    from data.remote import local_versions
    from georefine.progress import reporting

    with reporting() as report:
        folder = local_versions(dataset, (before, after), report)
    if as_json:
        from dataclasses import asdict

        _print_json([{"kind": c.kind, **asdict(c)} for c in changes(folder, before, after)])
    else:
        from georefine.show import show_diff

        show_diff(changes(folder, before, after))


@app.command()
def train(
    dataset: Dataset,
    out: Out,
    config: ConfigFile = None,
    device: Annotated[Device, typer.Option(help="Where training runs.")] = Device.cpu,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights and batches; default: as configured.")] = None,
    trunks: Annotated[
        Path | None, typer.Option("--trunks", metavar="RUN", help="Start from this run's trunks, in place of stage 0.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")] = False,
) -> None:
    """Train the mixture of platform experts on a data set and score it on the unseen buildings."""
    from schemas.config import config_dict

    settings = _config(config, train={"seed": seed, "trunks": str(trunks.resolve()) if trunks else None})
    from flows.train import train as run_train

    with _flow():
        scores = run_train(dataset, str(out), config_dict(settings), device.value, resume)
    from georefine.show import show_scores

    show_scores(scores, out)


@app.command()
def evaluate(
    run: Run,
    dataset: Dataset,
    split: Annotated[Split, typer.Option(help="Which buildings are scored.")] = Split.test,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also with blurred, noisy, occluded, foggy and crushed images.")
    ] = False,
    cues: Annotated[
        bool, typer.Option("--cues", help="Also with drone flights pooled, and images seen in crops.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.cpu,
    as_json: Json = False,
) -> None:
    """Recall@1/5/10 of a trained run, both ways and per platform, in percent."""
    from experts.evaluate import evaluate as score

    here = _here(dataset)
    scores = score(run, here, split.value, device=device.value)
    lines: list[str] = []
    if robustness:
        from experts import robustness as worsened
        from georefine.progress import reporting

        with reporting() as report:
            found = worsened.robustness(run, here, split.value, device=device.value, progress=report)
        scores["robustness"] = found
        lines += worsened.as_lines(found)
    if cues:
        from experts import cues as steadied
        from georefine.progress import reporting

        with reporting() as report:
            found = steadied.cues(run, here, split.value, device=device.value, progress=report)
        scores["cues"] = found
        lines += steadied.as_lines(found)
    if as_json:
        _print_json(scores)
    else:
        from georefine.show import show_scores

        show_scores(scores, run)
        if lines:
            print("\n".join(lines))


@app.command()
def search(
    run: Run,
    dataset: Dataset,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in a sentence.")],
    top: Annotated[int, typer.Option(min=1, help="How many images.")] = 10,
    split: Annotated[AnySplit, typer.Option(help="Which images are searched.")] = AnySplit.test,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.cpu,
    as_json: Json = False,
) -> None:
    """Find the images of a data set that a sentence describes: those of its test split, unless told otherwise."""
    from experts.search import as_json as plain
    from experts.search import search as find

    found = find(run, _here(dataset), text, top, split=split.value, device=device.value)
    if as_json:
        _print_json(plain(found))
    else:
        from georefine.show import show_search

        show_search(found)


@app.command()
def submit(
    run: Run,
    queries: Annotated[Path, typer.Option("--queries", metavar="FILE", help="One query per line: q_00001, tab, text.")],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images to be ranked.")],
    out: Out,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.cpu,
) -> None:
    """Write the submission file of RoboSense Track 4: for every query the ten best images of a folder."""
    from experts.submit import submit as run_submit
    from georefine.progress import reporting

    with reporting() as report:
        done = run_submit(run, queries, images, out, device=device.value, progress=report)
    for one in done.refused:
        print(f"refused: {str(one.path)!r}: {one.reason}", file=sys.stderr)
    left = f", {len(done.refused)} refused" if done.refused else ""
    print(f"{out}: {done.queries} queries, {done.images} images ranked{left}")


@app.command()
def strip() -> None:
    """Filter: one caption per line in, the caption without orientation words per line out."""
    from refine.orientation import strip_lines

    lines = _lines()
    strip_lines(lines, sys.stdout.write)


@app.command("refine-text")
def refine_text(
    platform: Annotated[Platform, typer.Option(help="Whose register the captions are rewritten in.")],
    refiner: RefinerOption = None,
    vllm_url: VllmUrl = None,
    vllm_python: VllmPython = None,
    model: ModelName = None,
    config: ConfigFile = None,
) -> None:
    """Filter: one caption per line in; out {raw, stripped, refined, queries, status, gates} as JSON, one per line."""
    from refine.refinement import refine_lines

    settings = _refining(config, refiner, vllm_url, vllm_python, model)
    name: PlatformName = platform.value
    mode = settings.orientation.mode(name)
    with _stream(settings, name) as answer:
        lines = _lines(json_out=True)
        # No tile is turned here: what remap would turn is kept.
        for row in refine_lines(lines, name, mode="strip" if mode == "strip" else "keep", refiner=answer):
            print(row, flush=True)


@contextmanager
def _stream(settings: "Config", platform: "PlatformName") -> Iterator["Stream | Literal['rules']"]:
    """The configured refiner for a filter; a model's replies are kept in the user's cache folder for the next time."""
    if settings.refine.refiner == "rules":
        yield "rules"
        return
    from functools import partial

    from georefine.progress import reporting
    from refine.server import model_of, serving
    from refine.vllm import in_order

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "georefine"
    cache.mkdir(parents=True, exist_ok=True)
    model = model_of(settings.refine, settings.server.urls)
    with reporting() as report, serving(model, settings.server, cache / "vllm.log", report) as urls:
        yield partial(
            in_order,
            platform=platform,
            model=model,
            config=settings.refine,
            server=settings.server,
            urls=urls,
            store=cache / "replies.sqlite",
            report=report,
        )


@app.command("check-replies")
def check_replies() -> None:
    """Filter: {"platform", "source", "reply"} per line in, {"passed", "gates"} per line out."""
    from refine.gates import check_lines

    for row in check_lines(_lines(json_out=True)):
        print(row)


@app.command()
def serve(
    source: Source,
    out: DatasetOut,
    cron: Annotated[str, typer.Option(help="When to rebuild: minute hour day month weekday.")] = "0 3 * * *",
    config: ConfigFile = None,
    train: Annotated[bool, typer.Option("--train", help="Train after each rebuild that made a new version.")] = False,
) -> None:
    """Rebuild on a schedule until interrupted; training runs go to DATASET-runs/vNNNN."""
    from schemas.config import config_dict

    settings = config_dict(_config(config))
    # A server's log is for its operator: the errors of scheduled runs, with their tracebacks.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    from flows.schedule import serve as run_schedule

    here = Path(Path(out).name if "://" in out else out)  # runs are made on this machine, wherever the data set lies
    runs = here.with_name(here.name + "-runs") if train else None
    run_schedule(source, out, cron, settings, runs)


@app.command("config")
def show_config(
    config: ConfigFile = None,
    show: Annotated[bool, typer.Option("--print", help="Print it (the default).")] = True,
) -> None:
    """The effective configuration, every key with a comment; redirect it to a file to start your own."""
    from schemas.config import commented

    print("# georefine configuration\n" + commented(_config(config)))


def _lines(*, json_out: bool = False) -> TextIO:
    """Standard input as lines that end in a line feed, and output to match.

    Bytes that are no UTF-8 pass through; in JSON they become escapes such as \\udcff, so that every line stays JSON.
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):
            errors = "backslashreplace" if json_out and stream is sys.stdout else "surrogateescape"
            stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
    return sys.stdin


def _fail(error: BaseException, sentence: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    print(f"georefine: {sentence}", file=sys.stderr)
    sys.exit(code)


def _everywhere(debug: list[bool]) -> list[Any]:
    """The options that every command takes: --version, and --debug, which is noted in the list."""

    def show_version(asked: bool) -> None:
        if asked:
            print(f"georefine {__version__}")
            raise typer.Exit

    def note_debug(asked: bool) -> None:
        debug.extend([True] * asked)

    declared = typer.Typer(add_completion=False)

    @declared.command()
    def options(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, expose_value=False, hidden=True, callback=show_version)
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", expose_value=False, hidden=True, callback=note_debug)] = False,
    ) -> None:
        """Never called."""

    return [option for option in typer.main.get_command(declared).params if option.name != "help"]


def _open_end() -> int | None:
    """A second descriptor of our output: rich and click put other things in its place when a pipe breaks."""
    try:
        return os.dup(sys.stdout.fileno())
    except (OSError, AttributeError):  # closed, or no file at all
        return None


def _reader_is_gone(output: int | None) -> bool:
    """Whether nobody reads our output any more, as behind `| head -n 1`."""
    if output is None:
        return False
    watch = select.poll()
    watch.register(output, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _end(ended: SystemExit, output: int | None) -> NoReturn:
    """Leave with the command's exit code; a reader that has seen enough is no failure of a command that is done."""
    code = 0 if isinstance(ended.__context__, BrokenPipeError) and _reader_is_gone(output) else ended.code
    with suppress(BrokenPipeError, AttributeError):
        sys.stdout.flush()
    if _reader_is_gone(output):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains of what it cannot write on its way out
    sys.exit(code)


def main() -> None:
    """Run the command line: one sentence per error, and the exit code that the design states."""
    debug: list[bool] = []
    output = _open_end()
    command = typer.main.get_command(app)
    for each in (command, *getattr(command, "commands", {}).values()):
        each.params += _everywhere(debug)
    try:
        command(prog_name="georefine")
    except GeorefineError as error:
        _fail(error, str(error), error.exit_code, bool(debug))
    except KeyboardInterrupt as error:
        _fail(error, INTERRUPTED, 130, bool(debug))
    except SystemExit as error:
        if error.code == 130:  # typer made it of the interrupt
            _fail(error, INTERRUPTED, 130, bool(debug))
        _end(error, output)
    except Exception as error:
        kind = type(error).__name__
        if kind == "PydanticSerializationError" and "KeyboardInterrupt" in str(error):  # Ctrl-C in its midst
            _fail(error, INTERRUPTED, 130, bool(debug))
        sentence = f"{kind}: {str(error).strip() or 'no message'}; run it again with --debug for details."
        _fail(error, sentence.replace("\n", " "), 1, bool(debug))
