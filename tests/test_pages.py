"""The documentation's generated tables and figures, and the versions that README and index name."""

import configparser
import re
from pathlib import Path

import choose
import claim_tables
import dct_filters
import gates
import pytest
import shapes
from pages import DOCS, SIZES, put, table_in
from PIL import Image
from variants import VARIANTS

ROOT = DOCS.parent
COST_ROWS = [line.strip("| ").split(" | ") for line in table_in(choose.PAGE, choose.COSTS).splitlines()[2:]]


def test_table_of_shapes() -> None:
    """The maps of all sizes. To renew it: python docs/figures/shapes.py"""
    assert table_in(shapes.PAGE, shapes.TABLE) == shapes.shapes_table()


def test_table_of_names() -> None:
    """Each name with a tag, and what it loads. To renew it: python docs/figures/choose.py --rounds 0"""
    assert table_in(choose.PAGE, choose.NAMES) == choose.names_table()


def test_table_of_costs() -> None:
    """What does not depend on the machine. To renew it: python docs/figures/choose.py"""
    names = [row[0].removesuffix(" alone").strip("`") for row in COST_ROWS]
    assert names == [name for size in SIZES for group in choose.models(size) for name in group]
    for name, (_, millions, gmacs, *_, accuracy, dice) in zip(names, COST_ROWS):
        model = choose.create(name, device="meta")
        assert (millions, gmacs) == (choose.parameters(model), choose.gmacs(model)), name
        assert [accuracy, dice] == choose.accuracies(name), name


def test_put_replaces_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.DOCS", tmp_path)
    (tmp_path / "page.md").write_text("a\n<!-- x -->\nold\n<!-- end x -->\nb <!-- y --><!-- end y -->\n")
    put("page.md", "x", "| new |")
    assert table_in("page.md", "x") == "| new |"
    text = (tmp_path / "page.md").read_text()
    assert text == "a\n<!-- x -->\n\n| new |\n\n<!-- end x -->\nb <!-- y --><!-- end y -->\n"
    with pytest.raises(ValueError, match="no comments <!-- z -->"):
        put("page.md", "z", "")


def test_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the pages show, and the range of the gates that they quote."""
    monkeypatch.setattr(dct_filters, "FIGURES", tmp_path)
    monkeypatch.setattr(gates, "FIGURES", tmp_path)
    dct_filters.draw()
    gates.main()
    text = (DOCS / "how_it_works.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\(figures/([^)]+)\)", text))
    assert {path.name for path in tmp_path.iterdir()} == shown
    for name in shown:
        with Image.open(tmp_path / name) as new, Image.open(DOCS / "figures" / name) as old:
            assert abs(new.width - old.width) < 50, name
    values = sorted(re.findall(r"\d\.\d\d", capsys.readouterr().out))
    assert f"from {values[0]} to {values[-1]}" in text


def test_readme_and_index_name_the_versions_of_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options = config["options"]
    floors = dict(re.findall(r"^(\w+) >= ([\d.]+)$", options["install_requires"], re.MULTILINE))
    python = options["python_requires"].removeprefix(">=")
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for version in (f"Python {python}+", f"torch {floors['torch']}+", f"timm {floors['timm']}+"):
            assert version in text, f"{page} does not say {version}"


@pytest.mark.parametrize("start", claim_tables.STARTS)
def test_tables_of_the_claim(start: str) -> None:
    """Of the trainings whose results are here. To renew them: python docs/figures/claim_tables.py"""
    trainings = claim_tables.load_trainings()
    for name, make in claim_tables.TABLES.items():
        written = table_in(claim_tables.PAGE, f"{name} {start}")
        if name == "differences":
            # The intervals take a minute.
            made = claim_tables.differences_table(trainings, start, n_bootstrap=1)
            assert re.findall(r"[-+][\d.]+ \(|minus|\w+ \|", written) == re.findall(r"[-+][\d.]+ \(|minus|\w+ \|", made)
        else:
            assert written == make(trainings, start), name


def test_tables_of_the_package_in_the_claim() -> None:
    for name, table in claim_tables.package_tables().items():
        assert table_in(claim_tables.PAGE, name) == table


def test_costs_of_the_claim() -> None:
    """What does not depend on the machine. To renew them: python docs/figures/claim_tables.py --rounds 15"""
    rows = [line.strip("| ").split(" | ") for line in table_in(claim_tables.PAGE, claim_tables.COSTS).splitlines()[2:]]
    networks = claim_tables.networks()
    assert [row[0] for row in rows] == [VARIANTS[variant] for variant in networks]
    for (_, millions, gmacs, *_), network in zip(rows, networks.values()):
        assert (millions, gmacs) == claim_tables.size_of(network)
