"""The digital mouse: published masses, organs where they are put, and nothing outside the skin."""

import numpy as np
import pytest

from evbiodist.imaging.anatomy import LOBES, ORGANS, REST, SPREAD, Anatomy, BodyGrid, Place
from evbiodist.study.constants import physiology


@pytest.fixture(scope="module")
def fine() -> tuple[Anatomy, BodyGrid, dict]:
    body = Anatomy()
    grid = BodyGrid.of(body, 0.5)
    return body, grid, grid.shares(body)


def test_a_body_weighs_what_it_should(fine):
    _, grid, _ = fine
    assert grid.inside.sum() * 0.5**3 / 1000 == pytest.approx(22.0, rel=0.1)  # mL of a 22 g mouse


@pytest.mark.parametrize("organ", ORGANS)
def test_organs_have_their_published_masses(fine, organ):
    body, _, shares = fine
    density = {"lung": 0.35, "gut": 0.62}.get(organ, 1.05)
    grams = physiology("mouse", organ, "weight_fraction").value / 100 * 22.0
    # what overlaps belongs to the organ named first, which costs the liver a tenth
    assert shares[organ].sum() * 0.5**3 * density / 1000 == pytest.approx(grams, rel=0.12 if organ == "liver" else 0.03)
    assert body.volume_mm3(organ) * density / 1000 == pytest.approx(grams, rel=1e-9)


def test_shares_fill_the_body_and_nothing_else(fine):
    _, grid, shares = fine
    total = sum(shares.values())
    assert set(shares) == {*ORGANS, REST}
    np.testing.assert_allclose(total[grid.inside], 1.0, atol=1e-12)
    assert not total[~grid.inside].any()
    assert min(float(s.min()) for s in shares.values()) >= 0


def test_the_spleen_lies_left_the_kidneys_behind_the_liver_in_front(fine):
    _, grid, shares = fine

    def centre(organ):
        w, s, u = np.meshgrid(grid.w, grid.s, grid.u, indexing="ij")
        return [float((shares[organ] * axis).sum() / shares[organ].sum()) for axis in (s, u, w)]

    assert centre("spleen")[1] < -5
    assert centre("kidney")[2] > centre("liver")[2]
    assert centre("brain")[0] < centre("heart")[0] < centre("liver")[0] < centre("kidney")[0] < centre("gut")[0]


@pytest.mark.parametrize(
    ("place", "axis", "by"), [(Place(along=2.0), 0, 2.0), (Place(across=1.5), 1, 1.5), (Place(up=1.0), 2, 1.0)]
)
def test_a_moved_organ_moves_by_that_much(place, axis, by):
    body = Anatomy()
    grid = BodyGrid.of(body, 0.5)
    scale = (body.length_mm, 1.0, 1.0)

    def centre(animal):
        share = grid.shares(animal, "brain")["brain"]
        axes = np.meshgrid(grid.w, grid.s, grid.u, indexing="ij")
        w, s, u = (float((share * a).sum() / share.sum()) for a in axes)
        return (s, u, w)

    moved = centre(body.moved("brain", place))[axis] - centre(body)[axis]
    assert moved * scale[axis] == pytest.approx(by, abs=0.15)


def test_size_follows_weight_and_log_volume():
    small, large = Anatomy.of_weight(18.0), Anatomy.of_weight(26.0)
    assert large.volume_mm3("liver") / small.volume_mm3("liver") == pytest.approx(26 / 18)
    assert large.length_mm / small.length_mm == pytest.approx((26 / 18) ** (1 / 3))
    assert Anatomy().moved("gut", Place(log_volume=0.3)).volume_mm3("gut") == pytest.approx(
        Anatomy().volume_mm3("gut") * np.exp(0.3)
    )


def test_every_organ_has_a_spread_between_animals():
    assert set(SPREAD) == set(LOBES)
    assert all(v > 0 for p in SPREAD.values() for v in (p.along, p.across, p.up, p.log_volume))


def test_what_is_seen_changes_smoothly_with_height():
    """Layers must not jump when a body grows: a tenth of a mm changes the light by a few percent at most."""
    from dataclasses import replace

    sums = []
    for height in np.linspace(9.6, 10.4, 9):
        body = replace(Anatomy(), half_height_mm=height)
        grid = BodyGrid.of(body, 1.5)
        shares = grid.shares(body)
        medium = grid.medium(shares, 780)
        amount = shares["kidney"][grid.inside] * medium.fill
        sums.append(medium.seen(medium.fluence((amount / amount.sum())[:, None]), "dorsal").sum())
    steps = np.diff(np.log(sums))
    assert np.abs(steps).max() < 0.06
