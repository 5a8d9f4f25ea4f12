"""Stacks, volumes and bands as studies: every row stands at its time, in its unit, with the value that was put in."""

import csv
import json

import numpy as np
import pytest
import tifffile
import tomli_w

import evbiodist as ev
from evbiodist.io.timing import FrameTiming
from evbiodist.phantom.pet import PetDesign, Scanner, write_pet_study
from evbiodist.study.flags import split
from evbiodist.study.load import load_study
from evbiodist.study.problems import InputError

BIAS, GAIN, READ, EXPOSURE = 100.0, 1.25, 4.0, 2.0
SHAPE = (48, 44)
PLACES = {"liver": (slice(8, 20), slice(10, 30)), "spleen": (slice(30, 38), slice(12, 24))}
PIXELS = {"liver": 240, "spleen": 96}
CAMERA = {"evbiodist": 1, "gain_e": GAIN, "read_noise_e": READ, "bias": BIAS, "offset": BIAS, "exposure_s": EXPOSURE,
          "pixel_size_mm": 0.5}  # fmt: skip
DYE = {"kind": "fluorescence", "emission_nm": 780, "excitation_nm": 745}
BACKGROUND = 60.0


def drawn():
    labels = np.zeros(SHAPE, np.uint8)
    for value, organ in enumerate(PLACES, 1):
        labels[PLACES[organ]] = value
    return labels


def light(**per_px):
    """Return an image (Y, X) of so many counts a pixel of each organ, over the background."""
    image = np.full(SHAPE, BACKGROUND)
    for organ, level in per_px.items():
        image[PLACES[organ]] += level
    return image


def camera(images, rng):
    """Return counts as a camera of that gain, read noise and bias gives them."""
    images = np.asarray(images)
    electrons = rng.poisson(images * GAIN) + rng.normal(0, READ, images.shape)
    return np.clip(np.rint(electrons / GAIN + BIAS), 0, 65535).astype(np.uint16)


def study(folder, counts, sidecar=None, *, label=None, imaging=None, labels=None, dose=(1e10, "particles"), tables=(),
          **record):  # fmt: skip
    """Write a study of one animal with one scan and its label image; return its folder."""
    folder.mkdir(exist_ok=True)
    named = (sidecar or {}).get("axes") if counts.ndim > 3 else None
    tifffile.imwrite(folder / "a.tif", counts, photometric="minisblack", metadata={"axes": named} if named else {})
    tifffile.imwrite(folder / "organs.tif", drawn() if labels is None else labels, photometric="minisblack")
    row = {"scan": "a", "subject": "m1", "label": "x", "time_h": 2.0, "kind": "in_vivo", "file": "a.tif",
           "organs": "organs.tif", **record}  # fmt: skip
    row = {k: v for k, v in row.items() if v is not None}
    frames = sidecar and "frame_start_s" in sidecar and counts.ndim == 3 and "axes" not in sidecar
    if sidecar:
        (folder / "a.json").write_text(json.dumps({**sidecar, **({"axes": "TYX"} if frames else {})}))
    (folder / "scans.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    (folder / "subjects.csv").write_text(f"subject,label,dose,dose_unit,route\nm1,x,{dose[0]},{dose[1]},iv_bolus\n")
    names = {"1": "liver", "2": "spleen"}
    document = {"name": "stacks", "labels": {"x": label or DYE}, "imaging": {"organ_labels": names, **(imaging or {})},
                "tables": {"subjects": "subjects.csv", "scans": "scans.csv", **dict(tables)}}  # fmt: skip
    (folder / "study.toml").write_text(tomli_w.dumps(document))
    return folder


def run(folder, **more):
    return ev.run(folder, folder.parent / f"out_{folder.name}", report=False, **more)


def by_organ(result, organ):
    assert not result.failures, result.failures
    return [r for r in result.observations if r["organ"] == organ]


def reason(result):
    assert result.observations == []
    (row,) = result.failures
    return row["reason"]


# ---------------------------------------------------------------- frames of a camera


def test_every_frame_of_a_stack_is_a_row_at_its_time(tmp_path):
    rng = np.random.default_rng(1)
    levels = {"liver": [400.0, 900.0, 250.0, 100.0], "spleen": [50.0, 300.0, 500.0, 700.0]}
    frames = [light(**{o: v[t] for o, v in levels.items()}) for t in range(4)]
    start, last = [0, 60, 600, 3600], [30, 60, 120, 600]
    side = {**CAMERA, "frame_start_s": start, "frame_duration_s": last, "time_reference": "injection"}
    result = run(study(tmp_path / "s", camera(frames, rng), side))
    assert len(result.observations) == 8
    for organ, level in levels.items():
        rows = by_organ(result, organ)
        assert [r["time_h"] for r in rows] == pytest.approx(
            [(s + d / 2) / 3600 for s, d in zip(start, last, strict=True)]
        )
        assert {r["unit"] for r in rows} == {"au"}
        for row, counts in zip(rows, level, strict=True):
            # shot and read noise of the organ's pixels, then what the background's uncertainty adds (a few %)
            alone = np.sqrt(PIXELS[organ] * ((counts + BACKGROUND) / GAIN + (READ / GAIN) ** 2)) / EXPOSURE
            assert row["se"] == pytest.approx(alone, rel=0.15)
            assert abs(row["value"] - counts * PIXELS[organ] / EXPOSURE) < 4 * row["se"]


@pytest.mark.parametrize(("reference", "zero"), [("injection", 0.0), ("scan_start", 5.0)])
def test_times_count_from_the_injection_or_from_the_scan_that_the_table_dates(tmp_path, reference, zero):
    side = {**CAMERA, "frame_start_s": [0, 1800], "frame_duration_s": [1800, 1800], "time_reference": reference}
    counts = camera([light(liver=500), light(liver=300)], np.random.default_rng(2))
    rows = by_organ(run(study(tmp_path / "s", counts, side, time_h=5.0)), "liver")
    assert [r["time_h"] for r in rows] == pytest.approx([zero + 0.25, zero + 0.75])


def test_a_single_frame_stands_at_the_time_of_the_table(tmp_path):
    side = {**CAMERA, "axes": "YX", "frame_start_s": [0], "frame_duration_s": [1800], "time_reference": "scan_start"}
    counts = camera(light(liver=500), np.random.default_rng(2))
    (row,) = by_organ(run(study(tmp_path / "s", counts, side, time_h=5.0)), "liver")
    assert row["time_h"] == pytest.approx(5.0)
    contradiction = {**side, "time_reference": "injection"}
    result = run(study(tmp_path / "t", counts, contradiction, time_h=5.0))
    assert "scans.csv says 5 h, the file 0.25 h after injection; correct one" in reason(result)


def test_a_stack_without_times_fails_in_words(tmp_path):
    counts = camera([light(liver=500)] * 3, np.random.default_rng(3))
    assert reason(run(study(tmp_path / "s", counts, {**CAMERA, "axes": "TYX"}))) == (
        "it holds 3 frames but no times; give frame_start_s and frame_duration_s in a sidecar a.json")  # fmt: skip


def test_a_dose_standard_in_every_frame_cancels_what_the_camera_loses(tmp_path):
    rng = np.random.default_rng(4)
    loss = np.array([1.0, 0.5, 0.25])
    frames = [light(liver=3000 * k, spleen=1000 * k) for k in loss]
    side = {**CAMERA, "frame_start_s": [0, 60, 120], "frame_duration_s": [60, 60, 60], "time_reference": "injection"}
    imaging = {"standard": {"organ": "spleen", "pct_of_dose": 2.0, "pct_of_dose_se": 0.1}}
    rows = by_organ(run(study(tmp_path / "s", camera(frames, rng), side, imaging=imaging)), "liver")
    truth = 2.0 * 3000 * PIXELS["liver"] / (1000 * PIXELS["spleen"])
    for row in rows:
        assert row["unit"] == "pct_id"
        assert abs(row["value"] - truth) < 4 * row["se"]
        assert row["se_systematic"] == pytest.approx(0.05 * row["value"], rel=1e-6)


# ---------------------------------------------------------------- frames that move


def moving(rng, shifts, size=96):
    """Return a body with two organs that is moved between frames, its label image, and the organs' true sums."""
    y, x = np.mgrid[:size, :size].astype(float)

    def spot(dy, dx, at, radius):
        return np.exp(-((((y - at[0] - dy) ** 2 + (x - at[1] - dx) ** 2) / radius**2) ** 3))

    frames = []
    for dy, dx in shifts:
        u, v = y - dy, x - dx
        body = np.exp(-((((u - 46) / 34) ** 2 + ((v - 48) / 18) ** 2) ** 4))
        there = np.sin(v / 4.3) * np.cos(u / 5.1)
        frames.append(
            200 * body * (1 + 0.4 * there) + 900 * spot(dy, dx, (40, 46), 6) + 700 * spot(dy, dx, (64, 52), 5) + 30
        )
    labels = np.zeros((size, size), np.uint8)
    labels[np.hypot(y - 40, x - 46) < 8] = 1
    labels[np.hypot(y - 64, x - 52) < 7] = 2
    return camera(frames, rng), labels


def test_registering_moving_frames_gives_the_values_of_the_frame_that_was_outlined(tmp_path):
    counts, labels = moving(np.random.default_rng(5), [(0, 0), (3, -2), (-4, 3), (5, 4)])
    side = {**CAMERA, "frame_start_s": [0, 60, 120, 180], "frame_duration_s": [60] * 4, "time_reference": "injection"}
    off = {}
    for by in ("none", "intensity", "body"):
        result = run(study(tmp_path / by, counts, side, imaging={"register_by": by}, labels=labels))
        for organ in PLACES:
            values = np.array([r["value"] for r in by_organ(result, organ)])
            off[by, organ] = np.abs(values[1:] / values[0] - 1).max()
    for organ in PLACES:
        assert off["none", organ] > 0.10
        assert off["intensity", organ] < 0.03
        assert off["body", organ] < 0.5 * off["none", organ]


def test_volumes_are_not_registered_and_say_so(tmp_path):
    counts = np.ones((2, 3, *SHAPE), np.uint16)
    side = {**CAMERA, "axes": "TZYX", "slice_mm": 1.0, "frame_start_s": [0, 60], "frame_duration_s": [60, 60]}
    labels = np.stack([drawn()] * 3)
    result = run(study(tmp_path / "s", counts, side, imaging={"register_by": "body"}, labels=labels, kind="volume"))
    assert "cannot be registered yet; set register_by = 'none'" in reason(result)


# ---------------------------------------------------------------- activity in volumes


def decay_mean(start_s, duration_s, half_h):
    """Share that decay leaves on average over a frame, by brute force."""
    at = (start_s + (np.arange(20000) + 0.5) / 20000 * duration_s) / 3600
    return float(np.mean(0.5 ** (at / half_h)))


HALF_H, DOSE_BQ = 1.83, 4e6
INJECTED = {"liver": 8e5, "spleen": 2e5}
STARTS, LASTS = (0.0, 1800.0, 3600.0), (1800.0, 1800.0, 7200.0)


def activity(folder, to, reference="injection", began_h=0.0, frames=(0, 1, 2), first_s=0.0, **record):
    """Write a scan of organs that keep what they got, corrected for decay to some instant.

    `began_h` after injection the scan's clock stood at 0, and the first frame began `first_s` later on that clock.
    """
    rng = np.random.default_rng(6)
    labels = np.zeros((4, *SHAPE), np.uint8)
    labels[1:3] = drawn()
    zero, ml = 3600 * began_h, 0.5 * 0.5 * 1.0 / 1000
    starts = [first_s + STARTS[i] for i in frames]
    # a clock that counts from the injection does not say when the scan began: that is its first frame then
    corrected_s = {"injection": 0.0, "scan_start": zero if reference == "scan_start" else starts[0]}
    volumes = []
    for start, i in zip(starts, frames, strict=True):
        left = (
            decay_mean(zero + start, LASTS[i], HALF_H)
            if to == "none"
            else 0.5 ** (corrected_s.get(to, 0.0) / 3600 / HALF_H)
        )
        volume = rng.normal(0, 1e3, labels.shape)
        for value, bq in enumerate(INJECTED.values(), 1):
            volume[labels == value] += bq * left / (labels == value).sum() / ml
        volumes.append(volume)
    side = {"evbiodist": 1, "axes": "TZYX"[len(frames) == 1 :], "unit": "Bq/mL", "pixel_size_mm": 0.5, "slice_mm": 1.0,
            "isotope": "18F", "frame_start_s": starts, "frame_duration_s": [LASTS[i] for i in frames],
            "time_reference": reference, "decay_corrected_to": to}  # fmt: skip
    counts = np.asarray(volumes if len(frames) > 1 else volumes[0], np.float32)
    return study(folder, counts, side, label={"kind": "radioactive", "half_life_h": HALF_H}, labels=labels,
                 dose=(DOSE_BQ, "bq"), kind="volume", **record)  # fmt: skip


@pytest.mark.parametrize(
    ("to", "reference", "began_h", "first_s"),
    [
        ("none", "injection", 0.0, 0.0),
        ("none", "scan_start", 1.5, 0.0),
        ("injection", "injection", 0.0, 900.0),
        ("injection", "scan_start", 1.5, 0.0),
        ("scan_start", "scan_start", 1.5, 0.0),
        ("scan_start", "scan_start", 1.5, 900.0),  # the first frame kept is not the scan's first
        ("scan_start", "injection", 0.0, 900.0),
    ],
)
def test_activity_is_brought_to_the_injection_whatever_the_file_did(tmp_path, to, reference, began_h, first_s):
    result = run(activity(tmp_path / "s", to, reference, began_h, first_s=first_s, time_h=began_h))
    for organ, bq in INJECTED.items():
        rows = by_organ(result, organ)
        middles = [began_h + (first_s + s + d / 2) / 3600 for s, d in zip(STARTS, LASTS, strict=True)]
        assert [r["time_h"] for r in rows] == pytest.approx(middles)
        for row in rows:
            assert row["unit"] == "pct_id"
            assert row["value"] == pytest.approx(100 * bq / DOSE_BQ, rel=0.005)
            assert "decay_corrected" in split(row["flags"])


@pytest.mark.parametrize("to", ["none", "injection", "scan_start"])
@pytest.mark.parametrize(("reference", "began_h", "first_s"), [("scan_start", 2.5, -3600.0), ("injection", 0.0, 0.0)])
def test_a_single_volume_is_brought_to_the_injection_too(tmp_path, to, reference, began_h, first_s):
    middle = began_h + (first_s + STARTS[2] + LASTS[2] / 2) / 3600  # what the table dates
    folder = activity(tmp_path / "s", to, reference, began_h, frames=(2,), first_s=first_s, time_h=middle)
    (row,) = by_organ(run(folder), "liver")
    assert row["time_h"] == pytest.approx(middle)
    assert row["value"] == pytest.approx(100 * INJECTED["liver"] / DOSE_BQ, rel=0.005)


def test_an_unknown_decay_correction_is_asked_for(tmp_path):
    assert "does not say whether its activity is corrected for decay; give decay_corrected_to" in reason(
        run(activity(tmp_path / "s", "unknown"))
    )


def test_activity_that_nobody_corrects_stays_as_measured_in_bq(tmp_path):
    folder = activity(tmp_path / "s", "none")
    with (folder / "study.toml").open("a") as study_file:
        study_file.write("\n[corrections]\ndecay = false\n")
    rows = by_organ(run(folder), "liver")
    assert {r["unit"] for r in rows} == {"bq"}
    expected = [INJECTED["liver"] * decay_mean(s, d, HALF_H) for s, d in zip(STARTS, LASTS, strict=True)]
    assert [r["value"] for r in rows] == pytest.approx(expected, rel=0.005)


@pytest.fixture(scope="module")
def pet(tmp_path_factory):
    """One animal in three frames, as a series and frame by frame."""
    found = {}
    frames = FrameTiming((0, 600, 3600), (600, 1200, 3600), "injection")
    for signals in ("series", "volume"):
        for corrected in (True, False):
            design = PetDesign(isotope="64Cu", animals=1, frames=frames, signals=signals, decay_corrected=corrected,
                               partial_voxels=False, scanner=Scanner((68, 24, 28), 1.6))  # fmt: skip
            folder = tmp_path_factory.mktemp("pet") / signals
            write_pet_study(folder, 5, design)
            found[signals, corrected] = folder, ev.run(folder, folder.parent / "out", report=False)
    return found


@pytest.mark.parametrize("signals", ["series", "volume"])
@pytest.mark.parametrize("corrected", [True, False])
def test_pet_gives_back_what_the_phantom_was_given(pet, signals, corrected):
    folder, result = pet[signals, corrected]
    assert not result.failures
    truth = {(r["organ"], round(float(r["time_h"]), 6)): float(r["reading"])
             for r in csv.DictReader((folder / "truth.csv").read_text().splitlines()) if r["kind"] == "observation"}  # fmt: skip
    rows = {(r["organ"], round(r["time_h"], 6)): r for r in result.observations}
    assert set(rows) == set(truth)
    for key, row in rows.items():
        assert row["unit"] == "pct_id"
        assert row["vessel_blood"] is None  # nobody drew blood
        # beside noise, voxels as wide as the blur leave up to 1 % (0.8 mm voxels: test_pet.py)
        assert abs(row["value"] - truth[key]) < 4 * row["se"] + 0.01 * truth[key], key
        assert 0 < row["se"] < 0.02 * truth[key]


def test_a_series_and_its_frames_one_by_one_agree(pet):
    for corrected in (True, False):
        series, volume = ({(r["organ"], round(r["time_h"], 6)): r for r in pet[s, corrected][1].observations}
                          for s in ("series", "volume"))  # fmt: skip
        assert set(series) == set(volume)
        for key, row in series.items():
            spread = np.hypot(row["se"], volume[key]["se"])
            assert abs(row["value"] - volume[key]["value"]) < 2 * spread + 0.005 * abs(row["value"])


# ---------------------------------------------------------------- bands

NM = [720, 760, 800, 840]
DIR, TISSUE = np.array([0.1, 0.3, 0.4, 0.2]), np.array([0.4, 0.3, 0.2, 0.1])


def bands(rng):
    """Return an image in four bands; the liver holds dye and autofluorescence, the spleen autofluorescence alone."""
    images = [light(liver=6000 * d + 4000 * a, spleen=5000 * a) for d, a in zip(DIR, TISSUE, strict=True)]
    return camera(images, rng)


def spectra(folder, dye="x", nm=NM):
    rows = "".join(f"{w},{d},{a}\n" for w, d, a in zip(nm, DIR * 7, TISSUE * 3, strict=True))
    (folder / "spectra.csv").write_text(f"wavelength_nm,{dye},autofluorescence\n{rows}")


BANDS = {**CAMERA, "axes": "CYX", "bands": [{"emission_nm": nm} for nm in NM]}


def test_the_label_s_own_light_is_told_from_the_tissue_s(tmp_path):
    folder = study(tmp_path / "s", bands(np.random.default_rng(7)), BANDS, imaging={"spectra": "spectra.csv"})
    spectra(folder)
    result = run(folder)
    truth = {"liver": 6000 * PIXELS["liver"] / EXPOSURE, "spleen": 0.0}
    for organ, expected in truth.items():
        (row,) = by_organ(result, organ)
        assert row["time_h"] == 2.0
        assert abs(row["value"] - expected) < 4 * row["se"]
        assert row["se"] < 0.01 * truth["liver"]
    assert result.notes == []


def test_bands_in_another_order_are_matched_by_their_wavelengths(tmp_path):
    counts = bands(np.random.default_rng(7))
    values = []
    for name, order in (("s", [0, 1, 2, 3]), ("t", [2, 0, 3, 1])):
        side = {**BANDS, "bands": [BANDS["bands"][i] for i in order]}
        folder = study(tmp_path / name, counts[order], side, imaging={"spectra": "spectra.csv"})
        spectra(folder)
        values.append([r["value"] for r in run(folder).observations])
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_bands_without_wavelengths_are_taken_in_order_and_that_is_said(tmp_path):
    side = {k: v for k, v in BANDS.items() if k != "bands"}
    folder = study(tmp_path / "s", bands(np.random.default_rng(7)), side, imaging={"spectra": "spectra.csv"})
    spectra(folder)
    result = run(folder)
    (row,) = by_organ(result, "liver")
    assert abs(row["value"] - 6000 * PIXELS["liver"] / EXPOSURE) < 4 * row["se"]
    assert any("does not say the wavelengths of its 4 bands" in note for note in result.notes)


@pytest.mark.parametrize(
    ("imaging", "dye", "nm", "words"),
    [
        ({}, "x", NM, "it holds 4 bands; name a table of spectra under [imaging] spectra, with a column 'x'"),
        ({"spectra": "spectra.csv"}, "DiR", NM, "no spectrum of 'x', only DiR, autofluorescence; name the column as the label"),
        ({"spectra": "none.csv"}, "x", NM, "none.csv"),
        ({"spectra": "../spectra.csv"}, "x", NM, "leads outside the study's folder"),
        ({"spectra": "spectra.csv"}, "x", [730, 760, 800, 840], "a band at 720 nm is outside the spectra (730 to 840 nm)"),
    ],
)  # fmt: skip
def test_spectra_that_do_not_serve_are_words(tmp_path, imaging, dye, nm, words):
    folder = study(tmp_path / "s", bands(np.random.default_rng(7)), BANDS, imaging=imaging)
    spectra(folder, dye, nm)
    assert words in reason(run(folder))


def test_bands_and_times_at_once_are_refused(tmp_path):
    counts = np.stack([bands(np.random.default_rng(7))] * 2)
    side = {**BANDS, "axes": "TCYX", "frame_start_s": [0, 60], "frame_duration_s": [60, 60]}
    folder = study(tmp_path / "s", counts, side, imaging={"spectra": "spectra.csv"})
    spectra(folder)
    assert "several bands and times at once; give one time a row of scans.csv" in reason(run(folder))


# ---------------------------------------------------------------- standard curves

PER_NG, BLANK = 900.0, 5000.0


def curve(folder, unit="particles", rng=None, blank=BLANK, amounts=(5, 10, 20, 40, 80, 160), name="curve.csv"):
    """Write standards whose response is a line that misses the origin, in triplicate."""
    rng = rng or np.random.default_rng(8)
    rows = [f"{a},{unit},{(blank + PER_NG * a) * rng.normal(1, 0.01)},{i}" for a in amounts for i in range(3)]
    (folder / name).write_text("amount,unit,response,replicate\n" + "\n".join(rows) + "\n")


def test_amounts_are_read_from_the_standard_curve(tmp_path):
    image = light(liver=500.0, spleen=180.0)
    folder = study(tmp_path / "s", camera(image, np.random.default_rng(9)), {**CAMERA, "systematic_rel": 0.1},
                   imaging={"curve": {"file": "curve.csv"}})  # fmt: skip
    curve(folder)
    result = run(folder)
    # an independent weighted line through the same standards
    table = np.loadtxt(folder / "curve.csv", delimiter=",", skiprows=1, usecols=(0, 2))
    slope, cut = np.polyfit(table[:, 0], table[:, 1], 1, w=1 / table[:, 0])
    for organ, level in (("liver", 500.0), ("spleen", 180.0)):
        (row,) = by_organ(result, organ)
        signal = level * PIXELS[organ] / EXPOSURE
        expected = (signal - cut) / slope
        assert row["unit"] == "particles"
        assert abs(row["value"] - expected) < 4 * row["se"]
        assert row["lloq"] > 0
        assert row["below_lloq"] is (row["value"] < row["lloq"])
        # the calibration's 10 % are of the signal: what they are worth in amounts is by the slope of the line
        assert row["se_systematic"] == pytest.approx(0.1 * signal / slope, rel=0.05)


def test_the_same_signal_with_and_without_curve_is_the_line(tmp_path):
    counts = camera(light(liver=500.0, spleen=180.0), np.random.default_rng(9))
    plain = run(study(tmp_path / "plain", counts, CAMERA))
    folder = study(tmp_path / "s", counts, CAMERA, imaging={"curve": {"file": "curve.csv", "weights": "1"}})
    curve(folder)
    read = run(folder)
    table = np.loadtxt(folder / "curve.csv", delimiter=",", skiprows=1, usecols=(0, 2))
    slope, cut = np.polyfit(table[:, 0], table[:, 1], 1)
    for a, b in zip(plain.observations, read.observations, strict=True):
        assert b["value"] == pytest.approx((a["value"] - cut) / slope, rel=1e-9)
        assert b["se"] == pytest.approx(a["se"] / slope, rel=1e-9)


def test_amounts_below_the_limit_and_above_the_standards_are_flagged(tmp_path):
    image = light(liver=5000.0, spleen=BLANK / PIXELS["spleen"] * EXPOSURE + 0.5)
    folder = study(
        tmp_path / "s", camera(image, np.random.default_rng(10)), CAMERA, imaging={"curve": {"file": "curve.csv"}}
    )
    curve(folder)
    result = run(folder)
    (low,), (high,) = by_organ(result, "spleen"), by_organ(result, "liver")
    assert low["below_lloq"] is True
    assert "below_lloq" in split(low["flags"])
    assert low["value"] < low["lloq"]
    assert high["below_lloq"] is False
    assert "above_range" in split(high["flags"])


def test_on_the_log_scale_no_light_is_below_the_limit_and_no_failure(tmp_path):
    image = light(liver=500.0)
    image[PLACES["spleen"]] -= 20  # darker than its surroundings
    folder = study(tmp_path / "s", camera(image, np.random.default_rng(11)), CAMERA,
                   imaging={"curve": {"file": "curve.csv", "scale": "log", "weights": "1"}})  # fmt: skip
    curve(folder, blank=0.0)
    result = run(folder)
    (dark,), (liver,) = by_organ(result, "spleen"), by_organ(result, "liver")
    assert (dark["value"], dark["se"], dark["below_lloq"], dark["lloq"]) == (None, None, True, 5.0)
    assert liver["value"] == pytest.approx(500.0 * PIXELS["liver"] / EXPOSURE / PER_NG, rel=0.03)
    assert liver["lloq"] == 5.0


def test_a_curve_on_the_log_scale_shares_errors_by_its_slope(tmp_path):
    folder = study(tmp_path / "s", camera(light(liver=500.0, spleen=180.0), np.random.default_rng(9)),
                   {**CAMERA, "systematic_rel": 0.2},
                   imaging={"curve": {"file": "curve.csv", "scale": "log", "weights": "1"}})  # fmt: skip
    rows = [f"{a},particles,{PER_NG * a**2 * f}" for a in (5, 10, 20, 40) for f in (0.99, 1.01)]
    (folder / "curve.csv").write_text("amount,unit,response\n" + "\n".join(rows) + "\n")
    (row,) = by_organ(run(folder), "liver")
    assert row["value"] == pytest.approx(np.sqrt(500.0 * PIXELS["liver"] / EXPOSURE / PER_NG), rel=0.02)
    assert row["se_systematic"] == pytest.approx(0.1 * row["value"], rel=0.05)  # a square root halves relative errors


@pytest.mark.parametrize(
    ("unit", "file", "words"),
    [
        ("ng", "curve.csv", "curve.csv gives amounts in 'ng'; expected one of pct_id, pct_id_per_g"),
        ("particles", "gone.csv", "gone.csv"),
        ("particles", "../curve.csv", "leads outside the study's folder"),
    ],
)
def test_curves_that_do_not_serve_are_words(tmp_path, unit, file, words):
    counts = camera(light(liver=500.0), np.random.default_rng(12))
    folder = study(tmp_path / "s", counts, CAMERA, imaging={"curve": {"file": file}})
    curve(folder, unit)
    assert words in reason(run(folder))


def test_a_curve_and_a_standard_in_the_image_are_one_too_many(tmp_path):
    imaging = {"curve": {"file": "curve.csv"}, "standard": {"organ": "spleen", "pct_of_dose": 1.0}}
    folder = study(tmp_path / "s", camera(light(), np.random.default_rng(1)), CAMERA, imaging=imaging)
    with pytest.raises(
        InputError, match=r"either imaging.standard \(in the image\) or imaging.curve \(a table\), not both"
    ):
        load_study(folder)


# ---------------------------------------------------------------- outlines

HAND = {"shift_sd_mm": 0.5, "grow_sd_mm": 0.25, "draws": 20}


def test_redrawn_outlines_widen_the_shared_error_by_what_they_change(tmp_path):
    counts = camera(light(liver=500.0, spleen=300.0), np.random.default_rng(13))
    plain = run(study(tmp_path / "plain", counts, CAMERA))
    wide = run(study(tmp_path / "wide", counts, CAMERA, imaging={"outline": HAND}))
    sides = {"liver": (12, 20), "spleen": (8, 12)}
    for a, b in zip(plain.observations, wide.observations, strict=True):
        assert (b["value"], b["se"]) == (a["value"], a["se"])
        assert "outline_spread" in split(b["flags"])
        assert "outline_spread" not in split(a["flags"])
        added = np.sqrt(b["se_systematic"] ** 2 - (a["se_systematic"] or 0.0) ** 2)
        # an outline on an even organ loses |shift| of light a side, and what shrinking takes; growing gains none
        h, w = sides[b["organ"]]
        level = {"liver": 500.0, "spleen": 300.0}[b["organ"]] / EXPOSURE
        rng = np.random.default_rng(0)
        dy, dx = np.abs(rng.normal(0, 1.0, (2, 4000)))
        grow = rng.normal(0, 0.5, 4000)
        inside = [np.clip(n - np.maximum(s - grow, 0) - np.maximum(-s - grow, 0), 0, n) for n, s in ((h, dy), (w, dx))]
        expected = np.std(inside[0] * inside[1]) * level
        assert added == pytest.approx(expected, rel=0.5)


def test_outlines_are_redrawn_under_a_dose_standard_too(tmp_path):
    counts = camera(light(liver=5000.0, spleen=3000.0), np.random.default_rng(14))
    imaging = {"standard": {"organ": "spleen", "pct_of_dose": 2.0}}
    (a,) = run(study(tmp_path / "plain", counts, CAMERA, imaging=imaging)).observations
    (b,) = run(study(tmp_path / "wide", counts, CAMERA, imaging={**imaging, "outline": HAND})).observations
    assert (b["organ"], b["unit"], b["value"]) == ("liver", "pct_id", a["value"])
    assert b["se_systematic"] > 0.02 * b["value"] > (a["se_systematic"] or 0.0)


def test_outlines_of_bands_are_redrawn_too(tmp_path):
    folder = study(
        tmp_path / "s",
        bands(np.random.default_rng(7)),
        BANDS,
        imaging={"spectra": "spectra.csv", "outline": {**HAND, "draws": 10}},
    )
    spectra(folder)
    (row,) = by_organ(run(folder), "liver")
    assert "outline_spread" in split(row["flags"])
    assert 0.02 < row["se_systematic"] / row["value"] < 0.3


def test_outlines_of_a_series_or_without_a_pixel_size_are_refused(tmp_path):
    frames = camera([light(liver=500.0)] * 2, np.random.default_rng(1))
    side = {**CAMERA, "frame_start_s": [0, 60], "frame_duration_s": [60, 60]}
    result = run(study(tmp_path / "s", frames, side, imaging={"outline": HAND}))
    assert "imaging.outline is for single images" in reason(result)
    side = {k: v for k, v in CAMERA.items() if k != "pixel_size_mm"}
    result = run(study(tmp_path / "t", frames[0], side, imaging={"outline": HAND}))
    assert "the pixel size is not known; give pixel_size_mm" in reason(result)


# ---------------------------------------------------------------- light that an organ hides


def slab(mu_a, mu_s, thick):
    """Return what a camera reads of an evenly glowing slab over a clear drop: the diffusion equation in closed form."""
    big_d, a = 1 / (3 * (mu_a + mu_s)), 2.95
    mu = np.sqrt(mu_a / big_d)
    face = 1 - np.cosh(mu * thick / 2) / (np.cosh(mu * thick / 2) + 2 * a * big_d * mu * np.sinh(mu * thick / 2))
    return 4 * face / (mu_a * thick) / (2 * a)


def tray_scan(tmp_path, name, nm, thickness, mass=None, excitation=None):
    label = {"kind": "bioluminescence", "emission_nm": nm}
    if excitation:
        label |= {"kind": "fluorescence", "excitation_nm": excitation}
    tables = {"masses": "masses.csv"} if mass else {}
    counts = camera(light(liver=500.0, spleen=300.0), np.random.default_rng(15))
    folder = study(
        tmp_path / name, counts, CAMERA, label=label, imaging={"thickness": thickness}, kind="ex_vivo", tables=tables
    )
    if mass:
        (folder / "masses.csv").write_text(f"subject,organ,mass_g\nm1,liver,{mass}\n")
    return {r["organ"]: r for r in run(folder).observations}


def test_hidden_light_is_ignored_flagged_or_added(tmp_path):
    from evbiodist.study.constants import tissue_optics

    ignored = tray_scan(tmp_path, "ignore", 610, "ignore", 0.2)
    flagged = tray_scan(tmp_path, "flag", 610, "flag", 0.2)
    corrected = tray_scan(tmp_path, "correct", 610, "correct", 0.2)
    assert split(ignored["liver"]["flags"]).isdisjoint({"attenuated", "thickness_corrected", "beyond_diffusion"})
    assert flagged["liver"]["value"] == ignored["liver"]["value"]
    assert "attenuated" in split(flagged["liver"]["flags"])
    # 0.2 g over 240 px of 0.25 mm2
    thick = 200 / 1.05 / 60
    _, mu_a, mu_s = next(row for row in tissue_optics()["liver"] if row[0] == 610)
    share = slab(mu_a, mu_s, thick)
    found = corrected["liver"]
    assert found["value"] == pytest.approx(ignored["liver"]["value"] / share, rel=0.01)
    assert found["se"] == pytest.approx(ignored["liver"]["se"] / share, rel=0.01)
    edge = abs(slab(mu_a * np.exp(0.25), mu_s, thick) - slab(mu_a * np.exp(-0.25), mu_s, thick)) / 2 / share
    assert found["se_systematic"] == pytest.approx(edge * found["value"], rel=0.02)
    assert "thickness_corrected" in split(found["flags"])
    # the spleen was not weighed, so its thickness serves for a flag only
    assert corrected["spleen"]["value"] == ignored["spleen"]["value"]
    assert "thickness_corrected" not in split(corrected["spleen"]["flags"])


def test_blue_light_of_a_liver_is_beyond_diffusion(tmp_path):
    rows = tray_scan(tmp_path, "s", 460, "flag")
    assert {"attenuated", "beyond_diffusion"} <= split(rows["liver"]["flags"])


def test_light_that_the_tables_do_not_reach_stops_no_scan_that_asks_for_no_correction(tmp_path):
    rows = tray_scan(tmp_path, "flag", 1000, "flag", 0.2, excitation=808)
    assert rows["liver"]["value"] == pytest.approx(500.0 * PIXELS["liver"] / EXPOSURE, rel=0.02)
    folder = study(tmp_path / "s", camera(light(liver=500.0), np.random.default_rng(1)), CAMERA, kind="ex_vivo",
                   label={"kind": "bioluminescence", "emission_nm": 1000}, imaging={"thickness": "correct"})  # fmt: skip
    assert "cannot be corrected for its thickness: 1000 nm is outside the tabulated" in reason(run(folder))


# ---------------------------------------------------------------- trays

AXES = {"liver": (11.0, 13.0), "spleen": (4.4, 10.4), "brain": (8.8, 8.0), "heart": (6.0, 5.6)}


def laid(folder, order, imaging, axes=AXES):
    """Write a study of one tray with organs in a row, each as bright as its place in `AXES` says."""
    shape = (40, 36 * len(order))
    y, x = np.indices(shape)
    image, labels, expected = np.full(shape, BACKGROUND), np.zeros(shape), {}
    for k, organ in enumerate(order):
        inside = ((y - 20) / axes[organ][0]) ** 2 + ((x - 18 - 36 * k) / axes[organ][1]) ** 2 <= 1
        level = 300.0 + 100 * list(axes).index(organ)
        image[inside] += level
        labels[inside] = 200
        expected[organ] = level * inside.sum() / EXPOSURE
    folder = study(folder, camera(image, np.random.default_rng(16)), CAMERA, imaging=imaging, kind="ex_vivo", organs=None,
                   photograph="photo.tif")  # fmt: skip
    tifffile.imwrite(folder / "photo.tif", (labels + 20).astype(np.uint8))
    return folder, expected


def test_organs_in_any_order_are_named_by_their_shape(tmp_path):
    order = ["spleen", "heart", "liver", "brain"]
    folder, expected = laid(tmp_path / "s", order, {"tray_organs": ["brain", "heart", "liver", "spleen"]})
    result = run(folder)
    for organ, value in expected.items():
        (row,) = by_organ(result, organ)
        assert row["value"] == pytest.approx(value, rel=0.05)


def test_names_that_may_be_wrong_are_flagged(tmp_path):
    axes = {"liver": (11.0, 13.0), "blood": (6.0, 6.0), "pancreas": (6.0, 6.0)}
    folder, _ = laid(tmp_path / "s", ["blood", "liver", "pancreas"], {"tray_organs": list(axes)}, axes)
    rows = {r["organ"]: r for r in run(folder).observations}
    assert "uncertain_name" not in split(rows["liver"]["flags"])
    assert "uncertain_name" in split(rows["blood"]["flags"])
    assert "uncertain_name" in split(rows["pancreas"]["flags"])


def test_a_tray_with_a_layout_and_a_list_or_another_number_of_pieces_is_words(tmp_path):
    order = ["spleen", "heart", "liver"]
    folder, _ = laid(tmp_path / "s", order, {"tray_organs": order, "tray": [order]})
    assert "the tray has both a layout and a list of organs; give one of them" in reason(run(folder))
    folder, _ = laid(tmp_path / "t", order, {"tray_organs": [*order, "brain"]})
    assert "3 pieces were found" in reason(run(folder))


# ---------------------------------------------------------------- what a result depends on


@pytest.mark.parametrize("which", ["sidecar", "curve", "spectra"])
def test_a_changed_companion_file_is_a_changed_scan(tmp_path, which):
    """A run that takes up an older one must not keep what another sidecar, curve or table of spectra gave."""
    imaging = {"sidecar": {}, "curve": {"curve": {"file": "curve.csv"}}, "spectra": {"spectra": "spectra.csv"}}[which]
    rng = np.random.default_rng(17)
    if which == "spectra":
        folder = study(tmp_path / "s", bands(rng), BANDS, imaging=imaging)
    else:
        folder = study(tmp_path / "s", camera(light(liver=500.0), rng), CAMERA, imaging=imaging)
    curve(folder)
    spectra(folder)
    (first,) = by_organ(run(folder), "liver")
    if which == "sidecar":
        (folder / "a.json").write_text(json.dumps({**CAMERA, "exposure_s": 2 * EXPOSURE}))
    elif which == "curve":
        curve(folder, blank=20000.0)
    else:
        text = (folder / "spectra.csv").read_text().splitlines()
        (folder / "spectra.csv").write_text("\n".join([*text[:1], "720,1,1", *text[2:]]) + "\n")
    (second,) = by_organ(run(folder), "liver")
    (afresh,) = by_organ(ev.run(folder, tmp_path / "afresh", report=False), "liver")
    assert second == afresh
    assert abs(second["value"] - first["value"]) > 5 * first["se"]
    if which == "sidecar":  # twice the exposure
        assert second["value"] == pytest.approx(first["value"] / 2, rel=1e-9)
