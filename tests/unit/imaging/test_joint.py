"""One animal from all its images: the light model is exact where it can be, and inference moves organs to where they are."""

from dataclasses import replace

import numpy as np
import pytest

from evbiodist.imaging.anatomy import LOBES, REST, Anatomy, Place
from evbiodist.imaging.joint import Frame, _parameters, _Problem, _spread, _State, infer
from evbiodist.phantom.body import DigitalAnimal

ORGANS = (*LOBES, REST)
AMOUNT = {
    "brain": 1.0,
    "heart": 1.0,
    "spleen": 4.0,
    "kidney": 6.0,
    "liver": 35.0,
    "lung": 3.0,
    "gut": 6.0,
    "body": 15.0,
}
SHAPE, PIXEL = (104, 52), 1.0


def empty(animal: DigitalAnimal, view: str, time: int = 0) -> Frame:
    y = (np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2)[:, None] * PIXEL
    x = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2)[None, :] * PIXEL
    s, u = animal.coordinates(y, x if view == "dorsal" else -x)
    return Frame(
        np.zeros(SHAPE), np.ones(SHAPE), s, u if view == "dorsal" else -u, view, time, PIXEL, 0.0, 780.0, 745.0
    )


def lit(animal: DigitalAnimal, frame: Frame, maps: dict, amount: dict, scale: float, background: float = 0.0) -> Frame:
    image = sum(amount[o] * animal.on_stage(maps[frame.view][o], frame.view, SHAPE, PIXEL) for o in ORGANS) * scale
    return replace(frame, image=image + background, variance=np.maximum(image, 0) + 1.0)


@pytest.fixture(scope="module")
def plain() -> tuple[DigitalAnimal, dict]:
    animal = DigitalAnimal(Anatomy())
    return animal, animal.seen(("dorsal", "ventral"), 780, 745)


@pytest.fixture(scope="module")
def frames(plain) -> list[Frame]:
    animal, maps = plain
    return [lit(animal, empty(animal, view), maps, AMOUNT, 1e4, 20.0) for view in ("dorsal", "ventral")]


def test_the_coarse_model_agrees_with_the_fine_phantom(plain, frames):
    """Footprints on 1.5 mm in the straight body against the phantom's on 1 mm on the stage, organs side by side.

    The rest of the body glows almost evenly, so that a seventh of it goes into the background: their sum is what is known.
    """
    found = infer(frames, Anatomy(), fit_anatomy=False)
    truth = np.array([AMOUNT[o] for o in found.organs]) * 1e4
    ratio = dict(zip(found.organs, found.activity[0] / truth, strict=True))
    for organ in ("brain", "liver", "kidney", "gut"):
        assert ratio[organ] == pytest.approx(1.0, abs=0.08), organ
    assert (
        np.abs(found.activity[0] - truth) < 1.5 * found.se[0]
    ).all()  # the image has no noise, but a model has its error
    animal, maps = plain
    for frame, model, background in zip(frames, found.model, found.background, strict=True):
        glow = animal.on_stage(maps[frame.view][REST], frame.view, SHAPE, PIXEL)[np.isfinite(model)].mean() * truth[-1]
        assert glow > 100
        assert ratio[REST] * glow + background == pytest.approx(glow + 20.0, rel=0.02)


def test_scaling_counts_scales_signals_and_errors(frames):
    one = infer(frames, Anatomy(), fit_anatomy=False)
    ten = infer(
        [replace(f, image=10 * f.image, variance=100 * f.variance) for f in frames], Anatomy(), fit_anatomy=False
    )
    np.testing.assert_allclose(ten.activity, 10 * one.activity, rtol=1e-6)
    np.testing.assert_allclose(ten.se, 10 * one.se, rtol=1e-5)


def test_a_constant_background_changes_no_organ(frames):
    one = infer(frames, Anatomy(), fit_anatomy=False)
    up = infer([replace(f, image=f.image + 500.0) for f in frames], Anatomy(), fit_anatomy=False)
    np.testing.assert_allclose(up.activity, one.activity, rtol=0.02, atol=1.0)
    np.testing.assert_allclose(up.background, one.background + 500, rtol=1e-3)


def test_the_order_of_frames_does_not_matter(frames):
    one, other = (infer(some, Anatomy(), fit_anatomy=False) for some in (frames, frames[::-1]))
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-8)


def test_times_need_not_begin_at_0(frames):
    """Frames of times 1 and 3 alone give what they give as times 0 and 1; times that no frame shows are not known."""
    one, other = (
        infer([replace(f, time=t) for f, t in zip(frames, times, strict=True)], Anatomy(), fit_anatomy=False)
        for times in ((0, 1), (1, 3))
    )
    np.testing.assert_allclose(other.activity[[1, 3]], one.activity, rtol=1e-8)
    np.testing.assert_allclose(other.se[[1, 3]], one.se, rtol=1e-8)
    np.testing.assert_allclose(other.correlation, one.correlation, atol=1e-8)
    assert np.isnan(other.activity[[0, 2]]).all()
    assert np.isnan(other.covariance[[0, 2]]).all()


def test_derivatives_are_those_of_the_whole_model(plain):
    """First-order change of light by perturbation against solving everything again, for every parameter."""
    animal, _ = plain
    both = [empty(animal, view) for view in ("dorsal", "ventral")]
    names = _parameters(Anatomy())
    state = _State(names, np.zeros(len(names)), Anatomy())
    problem = _Problem(both, state, 1.5)
    activity = np.array([[AMOUNT[o] for o in problem.organs]])
    slopes = problem.derivatives(activity)
    for name in (
        "brain.up",
        "kidney.along",
        "liver.across",
        "liver.log_volume",
        "body.absorption",
        "log_mu_s",
        "along_all",
    ):
        j, sd = names.index(name), _spread(name)
        ends = [_Problem(both, state.stepped(name, sign * sd), 1.5) for sign in (1, -1)]
        whole = np.concatenate(
            [activity[0] @ (ends[0].footprints[i] - ends[1].footprints[i]) / (2 * sd) for i in (0, 1)]
        )
        mine = np.concatenate([slope[j] for slope in slopes])
        assert np.corrcoef(whole, mine)[0, 1] > 0.97, name
        assert whole @ mine / (mine @ mine) == pytest.approx(1.0, abs=0.15), name


def test_organs_move_to_where_they_are_and_amounts_with_them():
    """A liver 3 mm back and 1 mm up and a brain 1 mm forward: the atlas misreads the kidney, inference repairs it."""
    body = Anatomy(places={"liver": Place(along=3.0, up=1.0), "brain": Place(along=-1.0), "kidney": Place(up=-0.8)})
    animal = DigitalAnimal(body)
    maps = animal.seen(("dorsal", "ventral"), 780, 745)
    rng = np.random.default_rng(1)
    images = []
    for time, share in enumerate((1.0, 0.2)):
        amount = {o: v * (share if o == "body" else 1.0) for o, v in AMOUNT.items()}
        for view in ("dorsal", "ventral"):
            frame = lit(animal, empty(animal, view, time), maps, amount, 1e4)
            images.append(replace(frame, image=rng.poisson(frame.image).astype(float)))
    found, atlas = infer(images, Anatomy()), infer(images, Anatomy(), fit_anatomy=False)
    truth = (
        np.array([[AMOUNT[o] * (share if o == "body" else 1.0) for o in found.organs] for share in (1.0, 0.2)]) * 1e4
    )
    place, prior = found.moved["liver.along"], found.moved["along_all"]
    assert place[0] + prior[0] == pytest.approx(3.0, abs=1.0)
    assert found.moved["liver.up"][0] == pytest.approx(1.0, abs=0.5)
    big = [found.organs.index(o) for o in ("brain", "liver", "kidney", "spleen")]
    ours, theirs = (np.abs(f.activity / truth - 1)[:, big] for f in (found, atlas))
    assert np.median(ours) < 0.15
    assert np.median(ours) < np.median(theirs)
    assert (np.abs(found.activity - truth) < 3 * found.se).mean() > 0.9
    assert found.objective < atlas.objective


def test_without_images_or_beyond_the_tables_it_says_so(plain):
    with pytest.raises(ValueError, match="at least one frame"):
        infer([], Anatomy())
    animal, _ = plain
    with pytest.raises(ValueError, match="outside the tabulated tissue optics"):
        infer([replace(empty(animal, "dorsal"), emission_nm=1100.0)], Anatomy())


def test_blue_light_is_flagged(plain):
    animal, _ = plain
    frame = replace(empty(animal, "dorsal"), emission_nm=460.0, excitation_nm=None, image=np.ones(SHAPE))
    assert infer([frame], Anatomy(), fit_anatomy=False).flags == ("beyond_diffusion",)
