"""The pages: every Python block runs as it stands, and every command names what exists.

The blocks of a page share one namespace, from top to bottom, in a temporary folder. A block that is not run has a
comment before it that says why: ``<!-- no test: reason -->``. A result that a block gives behind ``#`` as a Python
literal, as in ``model(x)  # (1, 7)``, is compared: for a tensor its shape. Comments in the lines after a ``print`` are
what it prints.
"""

import ast
import configparser
import importlib
import itertools
import re
import shlex
import shutil
import sys
import tokenize
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from datasets.synthetic import write_dataset
from hub_server import HubServer
from micro import build, sizes_of
from safetensors.torch import save_file

import mfsf2

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(path for path in [ROOT / "CONTRIBUTING.md"] if path.exists()), *ROOT.glob("docs/*.md")]
SLOW = {"deploy": pytest.mark.compile, "README": pytest.mark.training}
ELSEWHERE = {"own_data"}
"""Run, with their commands, by tests/scripts/test_own_training.py."""
MICRO = {"deploy"}
"""Built in micro size: what the page shows is what exporting does, which takes minutes for a tiny model."""
MAX_SKIPPED = 12


class Block(NamedTuple):
    page: Path
    line: int
    code: str
    reason: str | None


def blocks_of(page: Path, language: str) -> list[Block]:
    """Fenced blocks with the number of the line before their first one, and why they are not run."""
    text = page.read_text(encoding="utf-8")
    pattern = rf"(?:^<!-- no test(?P<reason>.*?)-->\n+)?^```{language}\n(?P<code>.*?)^```$"
    found = re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    return [Block(page, text.count("\n", 0, match.start("code")), match["code"], match["reason"]) for match in found]


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run a block statement by statement, and compare the results that it gives."""
    claims = results_of(block.code)
    for statement in ast.parse(block.code).body:
        last = statement.end_lineno or 0
        expected = comments_after(block.code, last) if ast.unparse(statement).startswith("print(") else ""
        with redirect_stdout(StringIO()) as printed:
            value = evaluate(ast.increment_lineno(statement, block.line), str(block.page), names, prints=bool(expected))
        if expected:
            assert printed.getvalue().strip() == expected, f"{block.page.name}:{block.line + last}"
        if last in claims:
            actual = tuple(value.shape) if isinstance(value, torch.Tensor) else value
            assert plain(actual) == plain(claims[last]), f"{block.page.name}:{block.line + last}"


def comments_after(code: str, line: int) -> str:
    """The text of the comments in the lines that follow, without the signs."""
    lines = itertools.takewhile(lambda text: text.startswith("# "), code.splitlines()[line:])
    return "\n".join(text[2:] for text in lines)


def evaluate(statement: ast.stmt, file: str, names: dict[str, Any], prints: bool = False) -> Any:
    """Run a statement; the value of an expression, of a printed one, or of what is assigned to one name."""
    if isinstance(statement, ast.Expr) and not prints:
        expression = statement.value
        if isinstance(expression, ast.Call) and ast.unparse(expression.func) == "print" and len(expression.args) == 1:
            (expression,) = expression.args
        return eval(compile(ast.Expression(expression), file, "eval"), names)
    exec(compile(ast.Module([statement], []), file, "exec"), names)  # noqa: S102
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return names[statement.targets[0].id]
    return None


def results_of(code: str) -> dict[int, Any]:
    """Literals in comments behind code, by line; what follows a semicolon is prose."""
    results = {}
    for token in tokenize.generate_tokens(StringIO(code).readline):
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
            text = re.sub(r"torch\.Size\((.*?)\)", r"\1", token.string[1:].split(";")[0].strip())
            try:
                results[token.start[0]] = ast.literal_eval(text)
            except (SyntaxError, ValueError):
                continue
    return results


def plain(value: Any) -> Any:
    """Lists for all sequences, so that shapes, tuples and lists compare."""
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def serve_backbones(hub: Path, *names: str) -> None:
    """timm's repositories of these models, with random weights."""
    for name in names:
        model = timm.create_model(name)
        folder = hub / "timm" / f"{name.partition('.')[0]}.{model.pretrained_cfg['tag']}"
        if not folder.exists():
            folder.mkdir(parents=True)
            save_file(model.state_dict(), folder / "model.safetensors")


def prepare_readme(hub: HubServer) -> None:
    serve_backbones(hub.root, "resnet50", "pvt_v2_b2")
    write_dataset("folder", Path("images"), lesions=6)


def prepare_index(hub: HubServer) -> None:
    shutil.copyfile(ROOT / "tests" / "lesions" / "lesion_1.png", "lesion.png")


def prepare_fine_tune(hub: HubServer) -> None:
    write_dataset("folder", Path("images"), lesions=6)


def prepare_weights(hub: HubServer) -> None:
    """A published model, and checkpoints of other trainers."""
    serve_backbones(hub.root, "resnet50", "pvt_v2_b2")
    model = build("cls", num_classes=2)
    mfsf2.save_pretrained(model, hub.root / "someone" / "lesions", label_names=["benign", "malignant"])
    hub.branches["someone/lesions", "v1.0"] = hub.root / "someone" / "lesions"
    weights = mfsf2.create_model("mfsf2_cls", num_classes=3).state_dict()
    torch.save({"state_dict": {f"model.{key}": value for key, value in weights.items()}}, "lightning.ckpt")
    torch.save({"model": weights, "model_ema": weights}, "last.pt")


def prepare_interop(hub: HubServer) -> None:
    prepare_index(hub)
    mfsf2.save_pretrained(mfsf2.create_model("mfsf2_tiny_cls", pretrained=True), "my-model")


def prepare_results(hub: HubServer) -> None:
    serve_backbones(hub.root, "resnet18.tv_in1k")


PREPARE: dict[str, Callable[[HubServer], None]] = {
    "README": prepare_readme,
    "index": prepare_index,
    "interop": prepare_interop,
    "fine_tune": prepare_fine_tune,
    "weights": prepare_weights,
    "results": prepare_results,
}
"""What the blocks of a page find when they run."""

WITH_BLOCKS = sorted({page for page in PAGES if blocks_of(page, "python") and page.stem not in ELSEWHERE})


@pytest.mark.parametrize("page", [pytest.param(p, marks=SLOW.get(p.stem, ()), id=p.stem) for p in WITH_BLOCKS])
def test_python_blocks(page: Path, hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    PREPARE.get(page.stem, lambda hub: None)(hub_server)
    if page.stem in MICRO:
        create = mfsf2.create_model
        monkeypatch.setattr(mfsf2, "create_model", lambda name, pretrained: create(name, **sizes_of(name)))
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page, "python"):
        if block.reason is None:
            run_block(block, names)


def test_blocks_that_are_not_run() -> None:
    """Few, and each says why."""
    skipped = [block for page in PAGES for block in blocks_of(page, "python") if block.reason is not None]
    assert len(skipped) <= MAX_SKIPPED
    for block in skipped:
        assert re.fullmatch(r": \S.{9,}\S ", block.reason or ""), f"{block.page.name}:{block.line}: no reason"
    marks = sum(page.read_text(encoding="utf-8").count("<!-- no test") for page in PAGES)
    assert marks == len(skipped), "a comment that no Python block follows"


def test_fences() -> None:
    """Each block names a language that is tested or needs no test: one without would be run by nobody."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) % 2 == 0 and not any(fences[1::2]), page.name
        unknown = {f for f in fences[::2] if not re.match(r"\{[\w-]+\}|(python|bash|text|bibtex|yaml)$", f)}
        assert not unknown, f"{page.name}: {unknown}"


def commands() -> list[tuple[str, str]]:
    """Commands of ``bash`` blocks and of indented ones, each with its page."""
    found = set()
    for page in PAGES:
        if page.stem in ELSEWHERE:
            continue
        indented = "".join(re.findall(r"^    (.*\n)", page.read_text(encoding="utf-8"), re.MULTILINE))
        for text in [block.code for block in blocks_of(page, "bash")] + [indented]:
            found |= {(page.stem, line) for line in text.replace("\\\n", " ").splitlines()}
    return sorted(found)


SCRIPT_COMMANDS = [(page, line) for page, line in commands() if re.match(r"python examples/\S+\.py\b", line)]


@pytest.mark.parametrize(("page", "command"), SCRIPT_COMMANDS)
def test_options(page: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The script takes every argument of the command: it rejects nothing but the one that is added."""
    _, script, *argv = shlex.split(command.replace("CONFIG.yaml", "ham10000_cls.yaml"))
    argv = [word for word in argv if word != "MORE"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script])
    assert Path(script).is_file()
    with pytest.raises(SystemExit):
        importlib.import_module(Path(script).stem).main([*argv, "--no_such_option=1"])
    error = capsys.readouterr().err.splitlines()[0]
    assert re.search(r"(arguments?|options?):? '?--no_such_option", error, re.IGNORECASE), error


def test_options_finds_unknown_ones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("--data.no_such folder", "--optim.epochs many", "--config no_such.yaml"):
        with pytest.raises((AssertionError, IndexError)):
            test_options("", f"python examples/train.py --data.folder x {wrong}", monkeypatch, capsys)


def test_paths_and_extras() -> None:
    """Files of the repository and extras of the package that commands name exist."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    for page, command in commands():
        for path in re.findall(r"(?<![\w./])(?:\.ci|examples|tests|docs|mfsf2)/[\w./-]+", command):
            assert (ROOT / path.replace("CONFIG", "ham10000_cls")).exists(), f"{page}: {path}"
        for names in re.findall(r"\.\[([\w,]+)\]", command):
            assert set(names.split(",")) <= extras, f"{page}: {names}"
