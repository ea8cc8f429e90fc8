"""The paragraph: winning, losing, undecided, missing, few stimuli, one of a thing."""

import pytest

from napari_neuraldiffuser.core.evaluation.trust.words import Verdict, counted, listed, paragraph

METRICS = ("pixcorr", "ssim", "edges", "twoway_demo")
LABELS = "PixCorr, SSIM, Edges (HOG) and Two-way identification (demo)"


def differences(mean, se=0.01, n=20, metrics=METRICS):
    return {m: {"mean": mean, "se": se, "n": n, "worse": 0.5} for m in metrics}


def trust(rows, n=20, **more):
    told = [{"name": name, "n": n, "scores": {}, "paired": paired} for name, paired in rows.items()]
    return {"n": n, "repeats": 3, "rows": told, "left_out": [], **more}


def test_a_run_that_wins_says_over_what_and_in_what():
    text = paragraph(trust({"mean": differences(0.1), "start": differences(0.1), "unguided": differences(0.1)}))
    assert "Guided pictures against the decoded start: higher in every score." in text
    assert "does not beat" not in text and "It does not show more" not in text
    assert (
        "In sum, this run shows more than the mean training image, the decoded start and the diffusion without "
        f"guidance in {LABELS}."
    ) in text


def test_a_run_that_loses_to_its_start_reads_so():
    text = paragraph(trust({"start": differences(-0.1), "unguided": differences(0.1)}))
    assert "Guided pictures against the decoded start: lower in every score." in text
    assert "So guidance does not beat the decoded start" in text
    assert "there is no score in which this run shows more than each of these" in text
    assert "It does not show more than the decoded start in SSIM." in text
    assert "this run shows more than the" not in text


def test_an_undecided_run_does_not_beat_its_start_either():
    text = paragraph(trust({"start": differences(0.01, 0.01), "unguided": differences(0.1)}))
    assert "against the decoded start: no clear difference in any score." in text
    assert "So guidance does not beat the decoded start" in text


def test_a_mixed_run_says_in_what_alone():
    mixed = differences(0.1) | differences(-0.1, metrics=("ssim",)) | differences(0.0, metrics=("edges",))
    text = paragraph(trust({"start": mixed}))
    assert (
        "higher in PixCorr and Two-way identification (demo), lower in SSIM, no clear difference in Edges (HOG)."
    ) in text
    assert "So guidance beats the decoded start in PixCorr and Two-way identification (demo) alone." in text
    assert "It does not show more than the decoded start in SSIM." in text


@pytest.mark.parametrize(("n", "said"), [(1, "1 test stimulus "), (4, "4 test stimuli ")])
def test_of_few_stimuli_nothing_counts(n, said):
    se = None if n == 1 else 0.001
    text = paragraph(trust({"start": differences(0.5, se, n), "mean": differences(0.5, se, n)}, n=n))
    assert said in text and "this run shows nothing yet" in text
    assert "higher in" not in text and "So guidance does not beat the decoded start" in text


def test_missing_figures_are_named_and_claim_nothing():
    text = paragraph(trust({}, left_out=["the best training image, as there is none"]))
    assert "Nothing was compared with any baseline" in text
    assert paragraph({"n": 3, "repeats": 1, "rows": []}).count("1 repeat each") == 1
    without = {m: {"mean": None, "se": None, "n": 0} for m in METRICS}
    assert "against the decoded start" not in paragraph(trust({"start": without}))
    told = trust({"start": differences(0.1)}, left_out=["one thing, as it was not there"])
    assert paragraph(told).endswith("Not compared: one thing, as it was not there.")


def test_repeats_nearness_and_selection_read_both_ways():
    def told(sign):
        d = differences(0.1 * sign)
        above = {"mean": 0.2 * sign, "se": 0.01, "n": 20}
        parts = [{"paired": differences(0)}, {"paired": d}]
        return paragraph(
            trust(
                {"start": differences(0.1)},
                nearness={"far_minus_near": d, "parts": parts},
                single={"paired": d},
                best={"gain": d},
                consistency={"repeat_identification": {"above": above, "constant": 0.5}},
            )
        )

    up, down, level = told(1), told(-1), told(0)
    assert "unlike every training image score higher in" in up and "score lower than those" in down
    assert "was like the seen one makes no clear difference" in level
    for text, word in ((up, "higher"), (down, "lower"), (level, "no clear difference")):
        assert f"The first repeat alone, guided against unguided: {word} in" in text
        assert f"chosen from fMRI alone against their mean: {word} in" in text
    assert "is above that of a constant picture (0.5)" in up and "is below that" in down
    assert "is not clearly different from that of a constant picture (0.5)" in level


def test_decoding_and_directions_read_both_ways():
    rows = [
        {"target": "z", "r2": 0.2, "r2_se": 0.01, "r2_over_ceiling": 0.5},
        {"target": "c", "r2": 0.01, "r2_se": 0.02, "r2_over_ceiling": None},
        {"target": "g02", "r2": -0.2, "r2_se": 0.01, "r2_over_ceiling": None},
    ]
    turns = [{"target": t, "ratio": r, "se": 0.05, "n": 20} for t, r in (("z", 0.3), ("c", 1.02), ("g02", 2.0))] + [
        {"target": "g04", "ratio": None, "se": None, "n": 2}
    ]
    text = paragraph(trust({}, decoding=rows, directions=turns))
    assert "above 0 of z." in text and "less than the training mean does of g02." in text
    assert "does not clearly explain any of c." in text and "That is 50% of what this decoder" in text
    assert "vary in fewer directions than true ones in z." in text
    assert "vary in more directions than true ones in g02, as noise does." in text
    assert "no clear difference in directions in c." in text
    assert "not known" in paragraph(trust({}, decoding=[rows[1]]))


def test_lists_and_numbers():
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"], "or") == "a, b or c"
    assert counted(1, "repeat") == "1 repeat" and counted(2, "stimulus", "stimuli") == "2 stimuli"


def test_scores_between_repeats_and_minor_ones_are_no_part_of_a_verdict():
    assert Verdict.of(differences(1.0, metrics=("repeat_edges", "twoway_edges"))).empty


def test_full_rows_read_both_ways():
    short, over = trust({"oracle": differences(-0.1)}, n=20), trust({"oracle": differences(0.01)}, n=20)
    assert f"With true targets the same generator scores higher in {LABELS} (20 stimuli)" in paragraph(short)
    assert "true targets score no higher" not in paragraph(short)
    assert f"In {LABELS} true targets score no higher" in paragraph(over)
    assert "In sum, there is" not in paragraph(over), "a ceiling is no baseline"
    told = {"enough": {"z": 10, "c": None, "g02": 1, "g04": 10}, "numbers": [1, 5, 10]}
    text = paragraph(trust({}, bottleneck=told))
    assert "From 10 numbers of the voxels z and g04 decode not clearly worse than from all." in text
    assert "From 10 numbers of the voxels, the most that was tried, c decode clearly worse" in text
    assert "From 1 number of the voxels g02 decode not clearly worse" in text
    rows = [
        {"target": t, "inside_minus_outside": {"mean": m, "se": 0.01, "n": 50}}
        for t, m in (("z", -0.1), ("c", 0.1), ("g02", 0.0))
    ]
    text = paragraph(trust({}, clusters={"targets": rows}))
    assert "are decoded worse" in text and "in z:" in text
    assert "are decoded better in c." in text and "makes no clear difference in g02." in text
