"""Names on a tray: right ones, or a confidence that says they may be wrong."""

import numpy as np
import pytest

from evbiodist.imaging.segment import segment_tray
from evbiodist.imaging.tray import SURE, name_by_layout, name_by_shape
from evbiodist.io.scan import Scan
from evbiodist.phantom.anatomy import TRAY, tray
from evbiodist.phantom.camera import photograph
from evbiodist.study.flags import FLAGS

SEVEN = ("liver", "spleen", "kidney", "kidney", "lung", "heart", "brain")
#: Half axes in mm of excised organs: those of the digital tray.
AXES = {"liver": (5.6, 6.2), "spleen": (2.2, 5.2), "kidney": (3.6, 2.8), "lung": (4.2, 5.2), "heart": (3.0, 2.8),
        "brain": (4.4, 4.0), "blood": (2.6, 2.6), "standard": (2.6, 2.6)}  # fmt: skip


def ellipse(shape, centre, axes, turn):
    y, x = np.indices(shape) - np.array(centre)[:, None, None]
    u, v = y * np.cos(turn) + x * np.sin(turn), -y * np.sin(turn) + x * np.cos(turn)
    return (u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1


def shuffled(rng, organs=SEVEN, vary=0.08):
    """Lay organs in any order and turned in any way; return the labels and the name of each label."""
    labels = np.zeros((105, 140), np.int32)
    names = list(rng.permutation(organs))
    for k, name in enumerate(names):
        axes = np.array(AXES[name]) * rng.normal(1, vary, 2) / 0.5
        centre = (18 + 35 * (k // 4), 18 + 35 * (k % 4))
        labels[ellipse(labels.shape, centre, axes, rng.uniform(0, np.pi))] = k + 1
    return labels, names


def told(naming, organs, names):
    """Return (confidence, right) of every name."""
    found = {}
    for organ, piece in zip(organs, naming.order, strict=True):
        found.setdefault(organ, set()).add(names[piece - 1])
    return [(c, found[organ] == {organ}) for organ, c in naming.confidence.items()]


def test_organs_in_any_order_are_named_or_called_uncertain():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(30):
        labels, names = shuffled(rng)
        pairs += told(name_by_shape(labels, SEVEN), SEVEN, names)
    sure, right = np.array(pairs, float).T
    assert right.mean() > 0.85
    assert right[sure >= SURE].mean() >= 0.97
    assert np.mean(sure >= SURE) > 0.3
    assert sure.mean() <= right.mean() + 0.03  # never surer than right


def test_tubes_that_look_alike_are_uncertain():
    rng = np.random.default_rng(1)
    organs = ("liver", "spleen", "blood", "standard")
    for _ in range(5):
        labels, _ = shuffled(rng, organs)
        confidence = name_by_shape(labels, organs).confidence
        assert confidence["blood"] < 0.6
        assert confidence["standard"] < 0.6
        assert confidence["liver"] > SURE


def test_names_do_not_depend_on_magnification_or_on_the_order_of_the_list():
    labels, _ = shuffled(np.random.default_rng(2))
    first = name_by_shape(labels, SEVEN)
    double = name_by_shape(np.kron(labels, np.ones((2, 2), np.int32)), SEVEN)
    assert first.order == double.order
    reverse = name_by_shape(labels, SEVEN[::-1])
    sets = [{(o, p) for o, p in zip(n, m.order, strict=True)} for n, m in ((SEVEN, first), (SEVEN[::-1], reverse))]
    assert sets[0] == sets[1]
    assert reverse.confidence == pytest.approx(first.confidence)


@pytest.mark.parametrize("seed", range(5))
def test_layouts_that_fit_are_sure(seed):
    naming = name_by_layout(tray(np.random.default_rng(seed)).labels, TRAY)
    assert min(naming.confidence.values()) > 0.95
    assert naming.notes == ()


TURNS = {
    "mirrored left to right": lambda a: a[:, ::-1],
    "turned by 90 degrees clockwise": lambda a: np.rot90(a, -1),
    "turned by 90 degrees counter-clockwise": lambda a: np.rot90(a),
}


@pytest.mark.parametrize("said", TURNS)
@pytest.mark.parametrize("seed", range(3))
def test_turned_and_mirrored_trays_are_noticed(said, seed):
    scene = tray(np.random.default_rng(seed))
    naming = name_by_layout(np.ascontiguousarray(TURNS[said](scene.labels)), TRAY)
    assert f"if the tray lies {said}" in naming.notes[0]
    names = [name for row in TRAY for name in row]
    for organ, piece in zip(names, naming.order, strict=True):
        if scene.names[piece] != organ:
            assert naming.confidence[organ] < SURE


@pytest.mark.parametrize(("turn", "said"), [(lambda a: a[::-1, ::-1], "turned by 180 degrees"),
                                            (lambda a: a[::-1], "mirrored top to bottom")])  # fmt: skip
def test_trays_upside_down_with_other_rows_are_refused_with_the_reason(turn, said):
    labels = np.ascontiguousarray(turn(tray(np.random.default_rng(0)).labels))
    with pytest.raises(ValueError, match=f"the rows of the tray in t1 are not apart .*{said}"):
        name_by_layout(labels, TRAY, "t1")


def test_upside_down_trays_with_equal_rows_are_noticed():
    labels = np.zeros((70, 70), np.int32)
    for k, name in enumerate(("liver", "heart", "spleen", "kidney")):
        labels[ellipse(labels.shape, (18 + 35 * (k // 2), 18 + 35 * (k % 2)), np.array(AXES[name]) / 0.5, 0.0)] = k + 1
    rows = [["liver", "heart"], ["spleen", "kidney"]]
    assert name_by_layout(labels, rows).notes == ()
    naming = name_by_layout(np.ascontiguousarray(labels[::-1, ::-1]), rows)
    assert "if the tray lies turned by 180 degrees" in naming.notes[0]
    assert max(naming.confidence.values()) < SURE


def test_a_liver_that_is_the_smallest_piece_is_named_in_the_note():
    labels = np.zeros((40, 80), np.int32)
    labels[ellipse(labels.shape, (20, 20), (6, 6), 0)] = 1
    labels[ellipse(labels.shape, (20, 55), (15, 17), 0)] = 2
    naming = name_by_layout(labels, [["liver", "heart"]])
    assert "the piece named liver is the smallest" in naming.notes[0]
    assert naming.confidence["liver"] < SURE


def test_exchanged_organs_of_other_size_are_uncertain_and_the_rest_stays_sure():
    scene = tray(np.random.default_rng(3))
    rows = [["heart", "spleen", "kidney", "kidney"], ["lung", "liver", "brain"], ["blood", "standard"]]
    confidence = name_by_layout(scene.labels, rows).confidence
    assert confidence["liver"] < SURE
    assert confidence["heart"] < SURE
    assert confidence["brain"] > SURE


def test_places_that_hardly_differ_are_uncertain():
    labels = np.zeros((60, 60), np.int32)
    labels[5:20, 20:35], labels[24:39, 22:37], labels[42:58, 20:36] = 1, 2, 3
    apart = name_by_layout(labels, [["a"], ["b"], ["c"]]).confidence
    close = name_by_layout(labels, [["a", "b"], ["c"]]).confidence
    assert min(apart.values()) > 0.9
    assert close["a"] < SURE
    assert close["b"] < SURE


def tray_scan(labels, rng):
    return Scan("tray", None, np.zeros(labels.shape, np.uint16), "YX", (0.5, 0.5), photograph=photograph(labels, rng))


def test_a_list_of_organs_gives_a_named_map_with_confidence():
    rng = np.random.default_rng(4)
    labels, names = shuffled(rng)
    found = segment_tray(tray_scan(labels, rng), organs=SEVEN)
    assert set(found.confidence) == set(found.organs)
    for organ, sure in found.confidence.items():
        true = np.isin(labels, [k + 1 for k, name in enumerate(names) if name == organ])
        if sure > 0.95:
            assert (found.mask(organ) & true).sum() > 0.9 * true.sum()
    assert "uncertain_name" in FLAGS


def test_layout_and_list_are_either_or():
    scan = tray_scan(np.zeros((20, 20), np.int32), np.random.default_rng(0))
    with pytest.raises(ValueError, match="both a layout and a list of organs; give one of them"):
        segment_tray(scan, [["liver"]], ["liver"])
    with pytest.raises(ValueError, match="the layout of the tray is not known"):
        segment_tray(scan)
