import copy
import json
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from napari_neuraldiffuser.core import evaluation
from napari_neuraldiffuser.core.base.colours import contrast
from napari_neuraldiffuser.core.base.names import SHOWN, Derivatives
from napari_neuraldiffuser.core.decoding.worth import COLUMNS
from napari_neuraldiffuser.core.evaluation.controls import summarise_controls
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.outputs.report import gallery
from napari_neuraldiffuser.core.outputs.report.page import ReportData, write_report
from napari_neuraldiffuser.core.outputs.report.parts import accuracy_tables, heat_tables
from napari_neuraldiffuser.core.outputs.report.worth import worth_table
from napari_neuraldiffuser.core.params import EvaluationParams

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OTHER = ("guided against", "layer profile")
"""Begin the descriptions of figures that are no pictures of stimuli."""


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def regions():
    rows = [
        {"roi": roi, "target": t, "share": s, "se": 0.01, "n_voxels": 9, "family": "visual", "kind": "product-measure"}
        for t in ("z", "c")
        for roi, s in (("V1v", 0.2), ("V1d", -0.05), ("outside visual", 0.9))
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    arms = {
        "unguided": rng.integers(0, 256, (3, 2, 24, 24, 3), dtype=np.uint8),
        "guided": (seen[:, None] * 0.8 + rng.integers(0, 50, (3, 2, 24, 24, 3))).astype(np.uint8),
    }
    params = EvaluationParams(size=32)
    scores = {arm: evaluation.evaluate(x, seen, params=params) for arm, x in arms.items()}
    once = params.but(metrics=("pixcorr", "ssim"))
    pictures = {"start": seen, "mean": np.repeat(seen[:1] // 2, 3, axis=0)}
    controls = {name: evaluation.evaluate(x, seen, params=once) for name, x in pictures.items()}
    ids = np.array([13, 5, 700])
    return ReportData(
        subject="sub-01",
        summary={**evaluation.summarise(scores), "controls": summarise_controls(controls, scores["guided"])},
        scores=evaluation.scores_table({**scores, **controls}, ids),
        stimulus_ids=ids,
        seen=seen,
        start=seen,
        recon=arms,
        captions=["a ball", "<script>alert(1)</script>", None],
        contribution=regions(),
        slices={},
        accuracy={"z": 0.4, "c": -0.1},
        parameters={"run": {"seed": 0}},
        versions={"python": "3"},
        command="neuraldiffuser run A B participant",
        notes=["session 3 is missing"],
        worth=worth_rows(),
        regions=region_rows(),
        spread=["spread of z multiplied by 2.10, per column", "spread of c left as decoded"],
    )


def region_rows():
    """All voxels, and two families; MT has no voxels."""
    sets = [
        ("mask", "all voxels", 0.3, 90),
        ("visual", "V1", 0.2, 40),
        ("visual", "MT", np.nan, 0),
        ("floc", "FFA", -0.1, 9),
    ]
    table = pd.DataFrame(sets, columns=["family", "roi", "r2", "n_voxels"])
    table = table.assign(target="z", r2_se=0.01, n_test=3, n_columns=512)
    return table


def worth_rows():
    """A target that is decoded, one at chance, and one that does not vary."""
    base = dict.fromkeys(COLUMNS, np.nan) | {"n_test": 3, "n_train": 20, "n_columns": 40, "n_over_d": 0.5}
    good = {"r": 0.41, "pattern_r": 0.52, "pattern_r_se": 0.02, "r2": 0.31, "r2_se": 0.01, "r2_ceiling": 0.62}
    more = {"r2_over_ceiling": 0.5, "two_way": 0.91, "two_way_se": 0.03, "two_way_p": 0.001, "mse_mean": 2.0}
    z = base | good | more | {"target": "z", "mse_projected": 0.5}
    chance = {"target": "c", "r2": -0.2, "two_way": 0.48, "two_way_p": 0.7, "r2_ceiling": np.nan}
    return pd.DataFrame([z, z | chance, base | {"target": "g02"}], columns=list(COLUMNS))


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "sub-01.html"
    write_report(path, data)
    return path


def test_the_page_needs_no_network(page):
    text = page.read_text()
    parser = Tags()
    parser.feed(text)
    sources = [attrs["src"] for tag, attrs in parser.tags if "src" in attrs]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not [tag for tag, attrs in parser.tags if tag in ("link", "iframe")]
    assert not re.search(r"https?://|@import|url\(", text)


def test_what_single_regions_decode_stands_beside_all_voxels(page):
    text = page.read_text()
    part = text[text.index("What single regions decode") : text.index("How to read this</h2>")]
    assert part.count("all voxels</td>") == 2 and part.index("<h4>visual</h4>") < part.index("<h4>floc</h4>")
    assert "0.200<br>" in part and "-0.100<br>" in part and "n/a<br>" in part and "on up to 512 numbers" in part
    assert accuracy_tables(pd.DataFrame()) == {}


def test_worth_of_targets_has_bars_ceilings_and_warnings(page, data):
    text = page.read_text()
    part = text[text.index("What a decoded value is worth") : text.index("How to read this</h2>")]
    for figure in ("0.410", "0.520 ± 0.020", "0.310 ± 0.010", "0.620", "0.910 ± 0.030, p .001", "0.750", "0.5"):
        assert figure in part, figure
    assert 'style="width:41.0%"' in part and 'style="width:0.0%"' in part
    assert "c: test stimuli are told apart no better than by chance" in part
    assert "z, c: fewer training stimuli than columns (n/d down to 0.5 in z)" in part
    assert part.count("n/a") >= 7 and ">nan<" not in part
    assert "spread of z multiplied by 2.10, per column; spread of c left as decoded." in text
    # a page of an earlier table has none
    assert worth_table(pd.DataFrame())["rows"] == []


def test_every_stimulus_has_its_row_and_images(page):
    parser = Tags()
    parser.feed(page.read_text())
    rows = [attrs for tag, attrs in parser.tags if attrs.get("class") == "row"]
    assert [row["data-stim"] for row in rows] == ["13", "5", "700"]
    images = [attrs for tag, attrs in parser.tags if tag == "img"]
    assert len(images) == 3 * (1 + 1 + 2 * 2) + 2  # seen, start, two arms of two repeats; plot, profile


def test_figures_on_the_page_are_those_of_the_summary(page, data):
    text = page.read_text()
    for metric in ("pixcorr", "ssim"):
        paired = data.summary["paired"][metric]
        assert f"{paired['mean']:+.3f}" in text
        assert f"{data.summary['arms']['guided'][metric]['mean']:.3f}" in text


def test_differences_have_n_and_are_bold_only_where_they_are_clear(page, data, tmp_path):
    text = page.read_text()
    assert "(n\u00a0=\u00a03)" in text
    assert "at least 5 stimuli and more than 2 standard errors from 0" in text
    assert not re.search(r"<b>[+-]\d", text), "three stimuli are too few, however large the difference"
    told = copy.deepcopy(data.summary)
    told["paired"]["pixcorr"] |= {"mean": 0.3, "se": 0.01, "n": 9}
    write_report(tmp_path / "many.html", replace(data, summary=told))
    many = (tmp_path / "many.html").read_text()
    assert "<b>+0.300\u00a0±\u00a00.010 (n\u00a0=\u00a09)</b>" in many, "a line may break before (n = 9) only"


def test_chance_and_ceiling_stand_beside_scores_and_r2(data, tmp_path):
    told = copy.deepcopy(data.summary)
    told["protocol"]["ceiling"] = {"levels": {"pixcorr": 0.912}}
    told["arms"]["unguided"]["pixcorr"]["chance"] = 0.203
    told["arms"]["guided"]["pixcorr"]["chance"] = 0.217
    ceiling = "noise ceiling of the betas 0.346 (mean over 9 voxels, means of 3.0 trials)"
    write_report(tmp_path / "page.html", replace(data, summary=told, noise_ceiling=ceiling))
    text = (tmp_path / "page.html").read_text()
    card = text[text.index('<div class="card"><b>PixCorr') :].split("</div>")[0]
    assert all(told in card for told in ("unguided → guided", "chance 0.203 → 0.217", "ceiling 0.912"))
    heads, cells = (re.findall(f"<{tag}>(.*?)</{tag}>", text) for tag in ("th", "td"))
    at = cells.index("PixCorr")
    row = dict(zip(heads, cells[at : at + len(heads)], strict=False))
    assert (row["chance, unguided"], row["chance, guided"], row["ceiling"]) == ("0.203", "0.217", "0.912")
    assert "<td>0.912</td>" in text
    assert ceiling in text
    assert "Chance: 0, the training mean" in text
    write_report(tmp_path / "old.html", data)
    assert "ceiling n/a" in (tmp_path / "old.html").read_text(), "a summary of an older version has none"


def test_the_decoded_start_and_the_mean_image_stand_beside_the_arms(page, data, tmp_path):
    text = page.read_text()
    gain = data.summary["controls"]["start"]["paired"]["pixcorr"]
    difference = f"{gain['mean']:+.3f}\u00a0±\u00a0{gain['se']:.3f} (n\u00a0=\u00a03)"
    card = text[text.index('<div class="card"><b>PixCorr') :].split("</div>")[0]
    assert "decoded start 1.000 ± 0.000" in card and difference in card
    table = text[text.index('<table id="arms">') :].split("</table>")[0]
    heads, cells = (re.findall(f"<{tag}>(.*?)</{tag}>", table) for tag in ("th", "td"))
    row = dict(zip(heads, cells[cells.index("PixCorr") :], strict=False))
    mean = data.summary["controls"]["mean"]["scores"]["pixcorr"]
    assert row["mean training image"] == f"{mean['mean']:.3f} ± {mean['se']:.3f}"
    assert difference in row["guided − start"]
    between = dict(zip(heads, cells[cells.index("Repeats: PixCorr") :], strict=False))
    assert between["decoded start"] == between["guided − start"] == ""
    assert text.count("<figcaption>decoded start: PixCorr 1.00, SSIM 1.00</figcaption>") == 3
    assert "takes no diffusion" not in text, "of three stimuli nothing is clear"
    clear = copy.deepcopy(data.summary)
    clear["controls"]["start"]["paired"]["pixcorr"] |= {"mean": -0.05, "se": 0.01, "n": 60}
    write_report(tmp_path / "clear.html", replace(data, summary=clear))
    assert (
        "The decoded start, which takes no diffusion, is closer to the seen images than the guided ones"
        in (tmp_path / "clear.html").read_text()
    )
    without = {key: value for key, value in data.summary.items() if key != "controls"}
    write_report(tmp_path / "old.html", replace(data, summary=without))
    assert "guided − start" not in (tmp_path / "old.html").read_text(), "a summary of an older version has none"


def test_hostile_captions_are_escaped(page):
    text = page.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_what_is_undefined_is_said_and_nothing_shows_nan(data, tmp_path):
    """A target without shares, one stimulus without scores, a metric without any, in words and as n/a."""
    table = data.scores.copy()
    table.loc[table.stim == 5, "pixcorr"] = np.nan
    table["edges"] = np.nan
    share = data.contribution.copy()
    share.loc[share.target == "c", ["share", "se"]] = np.nan
    words = ["c: regions have no share & there is no map"]
    lacking = replace(data, scores=table, contribution=share, accuracy={"z": 0.4, "c": np.nan}, undefined=words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path / "page.html", lacking)
    text = re.sub('base64,[^"]*', "", (tmp_path / "page.html").read_text())
    assert "c: regions have no share &amp; there is no map." in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE) and text.count("n/a") > 6
    assert "PixCorr n/a" in text


@pytest.mark.parametrize("keep", [[13], []])
def test_a_page_of_one_stimulus_or_without_a_score_in_both_arms(data, tmp_path, keep):
    table = data.scores.copy()
    table.loc[~table.stim.isin(keep), [c for c in table if c not in ("stim", "rep", "arm")]] = np.nan
    write_report(tmp_path / "page.html", replace(data, scores=table))
    assert ("guided against unguided" in (tmp_path / "page.html").read_text()) == bool(keep)


def test_labels_of_own_scans_are_shown_and_escaped(data, tmp_path):
    labels = ["faces/anna.png", "<img src=x onerror=alert(1)>", 'a "b" & c']
    table = data.scores.assign(stimulus=[labels[[13, 5, 700].index(s)] for s in data.scores.stim])
    own = replace(data, labels=labels, scores=table[["stim", "stimulus", *data.scores.columns[1:]]])
    write_report(tmp_path / "own.html", own)
    text = (tmp_path / "own.html").read_text()
    assert "<b>faces/anna.png (13)</b>" in text and "a &#34;b&#34; &amp; c (700)" in text
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert "faces/anna.png</td>" in text  # in the table of every score
    parser = Tags()
    parser.feed(text)
    assert not [attrs for tag, attrs in parser.tags if "onerror" in attrs]


def test_provenance_is_there(page):
    text = page.read_text()
    for needed in ("neuraldiffuser run A B participant", "session 3 is missing", "seed"):
        assert needed in text


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_are_readable_on_every_colour_of_the_table(sign):
    shares = sign * np.linspace(0, 1, 21)
    table = pd.DataFrame({"roi": [f"R{k}" for k in range(21)], "target": "z", "share": shares, "se": 0.01})
    rows = heat_tables(table.assign(n_voxels=9, kind="product-measure"))["regions"]["rows"]
    cells = [row["cells"][0] for row in rows]
    assert min(contrast(to_rgb(cell["ink"]), to_rgb(cell["colour"])) for cell in cells) > 3.9
    assert {cell["ink"] for cell in cells} == {"#ffffff", "#1c2430"}


def test_heat_is_coloured_within_each_target():
    heat = heat_tables(regions())["visual"]
    strong, weak, rest = (row["cells"][0]["colour"] for row in heat["rows"])
    assert heat["targets"] == ["z", "c"]
    assert strong == "#1f6f8b"
    assert int(weak[3:5], 16) < int(weak[1:3], 16)  # negative shares are red
    assert rest == "#ffffff"  # however large


@pytest.mark.parametrize("se", [0.0, np.nan])
def test_a_region_without_voxels_has_no_share(se):
    """Its rows in the table are 0, which nobody measured."""
    table = regions()
    table.loc[table.roi == "V1d", ["share", "se", "n_voxels"]] = 0.0, se, 0
    rows = {row["roi"]: row for row in heat_tables(table)["visual"]["rows"]}
    assert [(c["text"], c["se"], c["v"]) for c in rows["V1d"]["cells"]] == [("n/a", "", "")] * 2
    assert [c["text"] for c in rows["V1v"]["cells"]] == ["0.200"] * 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_sorting_in_a_browser(page, tmp_path):
    """Sort the gallery by PixCorr and the table by its first column, and read the order from the page."""
    probe = """<script>
    const label = way.parentElement, ways = [label.hidden];
    const first = [...document.querySelectorAll(".row")].map((r) => Number(r.dataset.stim));
    order.value = "pixcorr";
    order.dispatchEvent(new Event("change"));
    ways.push(label.hidden);
    const table = document.querySelector("table.sortable");
    table.tHead.rows[0].cells[3].querySelector("button").click();
    document.title = JSON.stringify({ways, first,
      gallery: [...document.querySelectorAll(".row")].map((r) => Number(r.dataset.pixcorr)),
      table: [...table.tBodies[0].rows].map((r) => Number(r.cells[3].dataset.v))});
    </script>"""
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text().replace("</body>", probe + "</body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync".split()
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{copy}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1).replace("&quot;", '"'))
    assert found.pop("ways") == [True, False], "stimuli have no highest"
    assert found.pop("first") == [5, 13, 700]
    for order in found.values():
        assert order == sorted(order, reverse=True)
        assert len(set(order)) > 1


def sources(path):
    parser = Tags()
    parser.feed(path.read_text())
    return [attrs for tag, attrs in parser.tags if tag == "img" and not attrs["alt"].startswith(OTHER)]


def on_disk(data, folder):
    """The same data, with its pictures as files below `folder`."""
    places = Derivatives(folder, "subj01")
    for i, stimulus in enumerate(data.stimulus_ids):
        for what in SHOWN:
            write_png(places.shown(stimulus, what), getattr(data, {"seen": "seen", "start": "start"}[what])[i])
        for arm, images in data.recon.items():
            for k, image in enumerate(images[i], 1):
                write_png(places.image(stimulus, k, arm), image)
    return replace(data, places=places)


def test_pictures_that_are_too_many_for_a_page_are_the_files_beside_it(data, tmp_path, monkeypatch):
    small = on_disk(data, tmp_path)
    write_report(small.places.page, small)
    assert all(attrs["src"].startswith("data:image/png") for attrs in sources(small.places.page))
    size = sum(len(attrs["src"]) for attrs in sources(small.places.page))
    monkeypatch.setattr(gallery, "LARGEST", size - 1)
    write_report(small.places.page, small)
    assert all(attrs["src"].startswith("data:image/webp") for attrs in sources(small.places.page))
    monkeypatch.setattr(gallery, "LARGEST", 1000)
    write_report(small.places.page, small)
    shown = sources(small.places.page)
    assert len(shown) == 3 * (2 + 2 * 2)
    for attrs in shown:
        assert (tmp_path / attrs["src"]).is_file() and attrs["loading"] == "lazy"
        assert (attrs["width"], attrs["height"]) == ("24", "24"), "else all would count as visible"
    assert "must lie beside it" in small.places.page.read_text()
    assert len({attrs["src"] for attrs in shown}) == len(shown)


def test_without_files_a_large_page_has_its_pictures_all_the_same(data, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "LARGEST", 1000)
    write_report(tmp_path / "page.html", data)
    assert all(attrs["src"].startswith("data:image/webp") for attrs in sources(tmp_path / "page.html"))


def test_a_page_reads_one_stimulus_at_a_time(data, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "LARGEST", 1000)
    small, asked = on_disk(data, tmp_path), []

    class Told:
        def __init__(self, pictures):
            self.pictures = pictures

        def __len__(self):
            return len(self.pictures)

        def __getitem__(self, key):
            asked.append(key)
            return self.pictures[key]

    told = replace(
        small, seen=Told(small.seen), start=Told(small.start), recon={a: Told(x) for a, x in small.recon.items()}
    )
    write_report(small.places.page, told)
    # those of the first are encoded until they are too large; then only how many and how large they are is asked
    assert set(asked) == {0} and len(asked) <= 10


def test_pictures_of_a_thousand_stimuli_are_not_encoded_to_find_that_they_are_too_many(data, tmp_path, monkeypatch):
    n, encoded = 40, []
    small = on_disk(data, tmp_path)
    again = np.arange(n) % 3
    scores = pd.concat([data.scores[data.scores.stim == 5].assign(stim=k) for k in range(n)])
    many = replace(
        data,
        stimulus_ids=np.arange(n),
        scores=scores,
        seen=data.seen[again],
        start=data.start[again],
        recon={arm: images[again] for arm, images in data.recon.items()},
        captions=[None] * n,
        places=small.places,
    )
    real = gallery.data_uri

    def counted(*args, **options):
        encoded.append(1)
        return real(*args, **options)

    monkeypatch.setattr(gallery, "data_uri", counted)
    # a tenth of the pictures would fit
    monkeypatch.setattr(gallery, "LARGEST", 4 * 6 * len(real(data.seen[0], kind="WEBP")))
    write_report(many.places.page, many)
    assert len(encoded) <= 2 * gallery.FIRST * 6
    assert len(sources(many.places.page)) == n * 6
