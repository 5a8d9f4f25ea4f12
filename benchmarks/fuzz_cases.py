"""The files of the reader fuzz: small valid ones of every format, and the same ones damaged in many ways.

A case is a number: the same seed and number give the same bytes, whichever cases were made before. Some builders are
those of the readers' own tests.
"""

import functools
import gzip
import io
import itertools
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

TESTS = Path(__file__).parents[1] / "tests" / "unit" / "io"
SHAPE = (3, 12, 16)
#: 1 to 1000, so that a zero in what is read was in no file.
PIXELS = np.random.default_rng(7).integers(1, 1000, SHAPE).astype(np.uint16)
_TEXTS = {".csv", ".txt", ".tsv", ".json", ".toml", ".hdr", ".voistat", ".zattrs", ".zgroup", ".zarray"}
#: These put zeros, other bytes of the file or another file's where pixels lie, so zeros that are read say nothing.
_MAY_ZERO = {"zeros", "insert zeros", "splice", "move", "double", "swap files"}


@dataclass(frozen=True)
class Sample:
    """A valid file or folder: bytes by name, which of them is read, and how a text inside of it is written anew."""

    format: str
    name: str
    files: dict[str, bytes]
    read: str
    text: str = ""
    rewrite: Callable[[str], bytes] | None = None
    has_zeros: bool = False


@dataclass(frozen=True)
class Case:
    """One damaged sample."""

    number: int
    sample: Sample
    files: dict[str, bytes]
    kinds: tuple[str, ...]


# --- valid files ------------------------------------------------------------------------------------------------------


@functools.cache
def samples() -> tuple[Sample, ...]:
    return (*_tiffs(), *_described_tiffs(), *_sidecars(), *_zarrs(), *_niftis(), *_dicoms(), *_pet(), *_ivis(), *_tables(),
            _study())  # fmt: skip


def _tiff(array=PIXELS, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", **{"metadata": None, **options})
    return buffer.getvalue()


def _tiffs():
    byte = (PIXELS % 255 + 1).astype(np.uint8)
    lossy = np.full((2, 64, 64), 200, np.uint8)
    kinds = {
        "plain": _tiff(), "big-endian": _tiff(byteorder=">"), "bigtiff": _tiff(bigtiff=True), "lzw": _tiff(compression="lzw"),
        "lzw predictor": _tiff(compression="lzw", predictor=True), "zlib": _tiff(compression="zlib"),
        "zstd": _tiff(compression="zstd"), "packbits": _tiff(byte, compression="packbits"),
        "jpegxr": _tiff(byte, compression="jpegxr"), "jpeg": _tiff(lossy, compression="jpeg"),
        "jpeg2000": _tiff(compression="jpeg2000"),
        "lerc": _tiff(PIXELS.astype(np.float32), compression="lerc"), "png": _tiff(byte, compression="png"),
        "float": _tiff(PIXELS.astype(np.float32), compression="zlib", predictor=True), "strips": _tiff(rowsperstrip=4),
        "tiles": _tiff(np.tile(PIXELS, (1, 3, 2)), tile=(16, 16), compression="zlib"),
        "tiles lzw": _tiff(np.tile(PIXELS, (1, 3, 2)), tile=(16, 16), compression="lzw"),
        "one page": _tiff(PIXELS[0], resolution=(20, 40), resolutionunit="CENTIMETER"),
    }  # fmt: skip
    return [Sample("TIFF", name, {"a.tif": data}, "a.tif") for name, data in kinds.items()]


OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="16" SizeY="12" SizeT="3" '
    'SizeC="1" SizeZ="1" PhysicalSizeX="50" PhysicalSizeY="50" PhysicalSizeXUnit="µm" TimeIncrement="2" '
    'TimeIncrementUnit="min"><Channel ID="Channel:0" SamplesPerPixel="1" EmissionWavelength="800"/>'
    '<TiffData IFD="0" PlaneCount="3"/><Plane TheC="0" TheZ="0" TheT="0" DeltaT="1" ExposureTime="2"/></Pixels></Image></OME>'
)
IMAGEJ = "ImageJ=1.54f\nimages=3\nframes=3\nunit=mm\nfinterval=2.0\nloop=false\nmin=1.0\nmax=999.0\n"
SHAPED = '{"shape": [3, 12, 16], "axes": "TYX"}'


def _described_tiffs():
    """TIFFs whose description is text that other programs write."""

    def written(text: str, **options) -> bytes:
        return _tiff(description=text.encode("utf-8", "replace").replace(b"\0", b"?") + b" ", **options)

    kinds = {
        "OME-TIFF": (OME, written),
        "OME-TIFF zlib": (OME, functools.partial(written, compression="zlib")),
        "ImageJ": (IMAGEJ, functools.partial(written, resolution=(20, 20))),
        "shaped": (SHAPED, written),
    }
    made = [Sample("OME-TIFF" if "OME" in name else "ImageJ TIFF" if name == "ImageJ" else "TIFF", name,
                   {"a.tif": rewrite(text)}, "a.tif", text, rewrite) for name, (text, rewrite) in kinds.items()]  # fmt: skip
    stack = io.BytesIO()
    tifffile.imwrite(stack, PIXELS, imagej=True, metadata={"axes": "TYX"})
    return [*made, Sample("ImageJ TIFF", "one block", {"a.tif": stack.getvalue()}, "a.tif")]


def _sidecars():
    told = {
        "evbiodist": 1, "axes": "TYX", "pixel_size_mm": [0.1, 0.2], "unit": "Bq/mL", "exposure_s": 2, "gain_e": 1.5,
        "read_noise_e": 3, "bias": 100, "saturation": 61000, "offset": 100, "scale": 0.5, "frame_start_s": [0, 60, 120],
        "frame_duration_s": [60, 60, 300], "time_reference": "injection", "isotope": "18F", "injected_bq": 5e6,
        "bands": [{"emission_nm": 800, "excitation_nm": 745, "name": "ICG"}], "injected_s": -3, "weight_g": 21.5,
        "decay_corrected_to": "injection", "photograph": "photo.tif", "systematic_rel": 0.05, "notes": ["by hand"],
    }  # fmt: skip
    toml = ('evbiodist = 1\naxes = "ZYX"\npixel_size_mm = 0.02\nslice_mm = 1\nnotes = "frozen"\nunit = "counts"\n'
            'exposure_s = 2.5\n[[bands]]\nemission_nm = 800\n')  # fmt: skip
    photo = _tiff(np.full(SHAPE[1:], 7, np.uint8))
    return [
        Sample("sidecar", "json", {"a.json": json.dumps(told, indent=1).encode(), "a.tif": _tiff(), "photo.tif": photo}, "a.tif"),
        Sample("sidecar", "toml", {"a.toml": toml.encode(), "a.tif": _tiff()}, "a.tif"),
    ]  # fmt: skip


def _zarrs():
    import zarr

    made = []
    for name, version, options in (
        ("0.4", 2, {"chunk_key_encoding": {"name": "v2", "separator": "/"}}),
        ("0.5", 3, {}),
        ("0.5 sharded", 3, {"shards": (3, 12, 16)}),
        ("0.5 raw", 3, {"compressors": None}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            array = zarr.create_array(
                root / "0", shape=SHAPE, chunks=(1, 12, 8), dtype="u2", zarr_format=version, **options
            )
            array[...] = PIXELS
            axes = [{"name": "t", "type": "time", "unit": "second"},
                    *({"name": a, "type": "space", "unit": "millimeter"} for a in "yx")]  # fmt: skip
            scale = [{"type": "scale", "scale": [60.0, 0.1, 0.1]}]
            told = {"multiscales": [{"version": "0.4", "name": "m", "axes": axes,
                                     "datasets": [{"path": "0", "coordinateTransformations": scale}]}]}  # fmt: skip
            if version == 2:
                (root / ".zgroup").write_text('{"zarr_format": 2}')
                (root / ".zattrs").write_text(json.dumps(told, indent=1))
            else:
                del told["multiscales"][0]["version"]
                node = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **told}}}
                (root / "zarr.json").write_text(json.dumps(node, indent=1))
            made.append(Sample("OME-Zarr", name, _folder(root, "a.zarr/"), "a.zarr"))
    return made


def _folder(root: Path, lead: str = "") -> dict[str, bytes]:
    return {f"{lead}{p.relative_to(root).as_posix()}": p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _niftis():
    import nibabel

    volume = np.moveaxis(np.tile(PIXELS[..., None], 2), (0, 1, 2, 3), (2, 1, 0, 3)).astype(np.int16)
    pet = {"Modality": "PT", "Units": "Bq/mL", "TracerName": "FDG", "TracerRadionuclide": "F18", "InjectedRadioactivity": 5,
           "InjectedRadioactivityUnits": "MBq", "TimeZero": "10:00:00", "ScanStart": 0, "InjectionStart": 0,
           "FrameTimesStart": [0, 60], "FrameDuration": [60, 120], "ImageDecayCorrected": True,
           "ImageDecayCorrectionTime": 0, "ModeOfAdministration": "bolus"}  # fmt: skip
    made = []
    for name, kind, packed in (("nii", nibabel.Nifti1Image, False), ("nii.gz", nibabel.Nifti1Image, True),
                               ("nifti2", nibabel.Nifti2Image, False)):  # fmt: skip
        image = kind(volume, np.diag((0.5, 0.4, 0.8, 1.0)))
        image.header.set_xyzt_units("mm", "sec")
        data = gzip.compress(image.to_bytes(), mtime=0) if packed else image.to_bytes()
        file = "a.nii.gz" if packed else "a.nii"
        made += [Sample("NIfTI", name, {file: data}, file),
                 Sample("NIfTI", f"{name} and json", {"a.json": json.dumps(pet, indent=1).encode(), file: data}, file)]  # fmt: skip
    return made


def _tests(name: str):
    """Return a module of the readers' tests, for its builders."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return __import__(name)


def _made(format: str, name: str, read: str, build: Callable[[Path], object], **more) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        return Sample(format, name, _folder(Path(folder)), read, **more)


def _dicoms():
    from pydicom.uid import ImplicitVRLittleEndian, RLELossless

    dicom = _tests("test_dicom")
    dicom.UIDS = itertools.count(1)
    flat = np.full((12, 16), 500)
    return [
        _made("DICOM", "one file", "a.dcm", lambda f: dicom.write(f / "a.dcm", flat)),
        _made("DICOM", "implicit", "a.dcm", lambda f: dicom.write(f / "a.dcm", flat, syntax=ImplicitVRLittleEndian)),
        _made("DICOM", "run length", "a.dcm", lambda f: dicom.write(f / "a.dcm", PIXELS[0], syntax=RLELossless)),
        _made("DICOM", "series", ".", lambda f: dicom.volume(f, slices=3)),
        _made("DICOM", "enhanced", "a.dcm", lambda f: dicom.enhanced(f / "a.dcm"), has_zeros=True),
        _made("DICOM", "nuclear medicine", "a.dcm",
              lambda f: dicom.nm(f / "a.dcm", 5, "RECON TOMO", SpacingBetweenSlices="1.5", SliceVector=[1, 2, 3, 4, 5]),
              has_zeros=True),
    ]  # fmt: skip


def _pet():
    ecat, inveon = _tests("test_ecat"), _tests("test_inveon")
    return [
        _made("ECAT", "dynamic", "a.v", lambda f: ecat.build(f / "a.v")),
        _made("ECAT", "float", "a.v", lambda f: ecat.build(f / "a.v", pixels=ecat.PIXELS[:1].astype(">f4"))),
        _made("Inveon", "dynamic", "mouse.img", lambda f: inveon.build(f)),
        _made(
            "Inveon",
            "float",
            "mouse.img.hdr",
            lambda f: inveon.build(f, {"data_type": 4, "total_frames": 1}, inveon.FRAMES[:1], dtype="<f4"),
        ),
    ]


def _ivis():
    click, sequence = _tests("test_ivis"), _tests("test_ivis_sequence")
    dark = np.random.default_rng(1).integers(5080, 5121, (8, 8)).astype(np.uint16)
    images = {"luminescent.TIF": _tiff(np.full((8, 8), 1500, np.uint16)), "background.TIF": _tiff(dark),
              "photograph.TIF": _tiff(np.arange(1, 1025, dtype=np.uint16).reshape(32, 32))}  # fmt: skip
    header = click.HEADER.format(photo_fov="4")
    corrected = header + click.CORRECTED.format(flat="1")
    vendor = {"luminescentFloatCorrected.TIF": _tiff(np.full((8, 8), 1e5, np.float32))}
    folder = {"s/SequenceInfo.txt": b"*** Sequence:\tAB_SEQ\nClickNumber 1:\tAB_001\nClickNumber 2:\tAB_002\n"}
    for i, name in enumerate(("AB_001", "AB_002")):
        keys = {"number": name, "fov": "4", "exposure": 10, "binning": 8, "f": 1, "bias": 500, "emission": "Open",
                "excitation": "Block", "more": "", "times": sequence.clock(300 * i, "both")}  # fmt: skip
        folder[f"s/{name}/ClickInfo.txt"] = sequence.CLICK.format(**keys).encode()
        folder[f"s/{name}/luminescent.TIF"] = images["luminescent.TIF"]
    return [
        Sample("IVIS", "click", {"ClickInfo.txt": header.encode(), **images}, "."),
        Sample("IVIS", "corrected", {"ClickInfo.txt": corrected.encode(), **images, **vendor}, "."),
        Sample("IVIS", "sequence", folder, "s"),
    ]


def _tables():
    living, voistat = _tests("test_living_image"), _tests("test_voistat")
    own = ("subject,label,organ,time_h,value,se,unit\n" +
           "".join(f"00{i},DiR,{o},{t},{v},0.1,pct_id_per_g\n" for i in (1, 2) for o in ("blood", "brain")
                   for t, v in ((0.5, 20), (4, 3)))).encode()  # fmt: skip
    long = b"organ,t_min,mean,sd,n\nLiver,30,8.1,0.5,3\nLiver,120,6.2,0.4,3\nBlood,30,2.1,0.5,3\n"
    wide = b"# unit in table: pct_id_per_g\norgan;m30;sd;h2;sd\nLiver;8.1;0.5;6.2;0.4\nBlood;2.1;0.5;1.2;0.1\n"
    return [
        _made("Living Image", "comma", "a.csv", lambda f: living.table(f / "a.csv")),
        _made(
            "Living Image", "utf-16", "a.txt", lambda f: living.table(f / "a.txt", delimiter="\t", encoding="utf-16")
        ),
        _made("PMOD voistat", "tab", "a.voistat", lambda f: voistat.table(f / "a.voistat")),
        Sample("organ table", "canonical", {"a.csv": own}, "a.csv"),
        Sample("organ table", "long", {"a.csv": long}, "a.csv"),
        Sample("organ table", "wide", {"a.csv": wide}, "a.csv"),
    ]


STUDY = """name = "s"
species = "mouse"
[labels.DiR]
kind = "fluorescence"
[labels.In]
kind = "radioactive"
isotope = "111In"
[tables]
subjects = "subjects.csv"
scans = "scans.csv"
masses = "masses.csv"
observations = ["observations.csv", {file = "long.csv", label = "In", unit = "pct_id", n = 3}]
[kinetics]
max_extrap_pct = 20.0
level = 0.95
fixed = {k12 = 0.1}
[crossval]
organ = "liver"
next_animals = 4
[imaging]
organ_labels = {1 = "liver"}
"""


def _study():
    files = {
        "study.toml": STUDY,
        "subjects.csv": "subject,label,dose,dose_unit,route,sex\n001,DiR,1e10,particles,iv_bolus,F\n"
        "NA,DiR,1e10,particles,iv_bolus,M\nNone,In,5e6,Bq,iv_bolus,F\n",
        "scans.csv": "scan,subject,label,time_h,kind,file,pixel_size_mm,exposure_s\ns1,001,DiR,0.5,in_vivo,a.tif,0.1,10\n"
        "s2,NA,DiR,24,ex_vivo,b.tif,,\n",
        "masses.csv": "subject,organ,mass_g\n001,liver,1.2\nNA,brain,0.4\n",
        "observations.csv": "subject,label,organ,time_h,value,se,unit\n001,DiR,blood,0.5,20,0.1,pct_id_per_g\n"
        "NA,DiR,brain,4,0.5,0.1,pct_id_per_g\n",
        "long.csv": "organ,t_min,mean,sd\nLiver,30,8.1,0.5\nLiver,120,6.2,0.4\n",
    }
    return Sample("study", "toml and tables", {n: t.encode() for n, t in files.items()}, "study.toml")


# --- damage -----------------------------------------------------------------------------------------------------------

_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
)
_NUMBERS = ("", "0", "-1", "1", "-0", "1e309", "-1e309", "NaN", "nan", "inf", "-inf", "Infinity", "1e-320", "1e308", "1e9",
            "9" * 400, "9" * 5000, "2147483648", "4294967295", "18446744073709551616", "1,5", "0x10", "1_000", "１２", "- 1",
            "1000000000000", "true", "null", "[]", "{}", "1e", ".", "1.5.2", "0.1", "-3.5", "100", "1e5")  # fmt: skip
_WORDS = ("", " ", '"', "'", "\n", "\r\n", "\r", "\0", "\ufeff", "\u202e", "é" * 50, "😀", "=1+1", "../../x", "/etc/hostname", "~",
          "A" * 10_000, "$x_^\\", "<b>", "%s%n", "None", "NA", "nan", "null", "true", "[", "]", "{", "}", "[[", "#", "//", ";",
          ",", "\t", "|", "&amp;", "&x;", "<!DOCTYPE a [<!ENTITY x \"y\">]>", "\x1b[31m", "\x85", "\u2028", "unknown", "counts",
          "Bq/mL", "TZCYX", "YX", "liver", "..", ".", "a" * 300, "con", "18F", "https://example.org/x", "\\\\x\\y")  # fmt: skip
_RUNS = (
    "[",
    "(",
    "a",
    "9",
    "1",
    ".",
    "-",
    " ",
    ":",
    "\t",
    '"',
    ",",
    "\n",
    "{",
    "<a>",
    "a:",
    "1,",
    " 1",
    "lamp",
    "total1",
)
_TOKEN = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[A-Za-z_][\w.]*")


def case(seed: int, number: int) -> Case:
    """Return a damaged file; its sample follows from its number, so that all samples come in turns."""
    chance = np.random.default_rng([seed, number])
    sample = samples()[number % len(samples())]
    files, kinds = dict(sample.files), []
    for _ in range(1 if chance.random() < 0.6 else int(chance.integers(2, 5))):
        name = _choose(chance, list(files)) if files else None
        if name is None:
            break
        if sample.rewrite is not None and chance.random() < 0.5:
            text, kind = _odd_text(chance, sample.text)
            files[sample.read], kind = _rewritten(sample, text, files[sample.read]), f"text: {kind}"
        elif len(files) > 1 and chance.random() < 0.08:
            kind = _odd_folder(chance, files, name)
        elif _is_text(name) and chance.random() < 0.8:
            encoding = "utf-16" if files[name][:2] == b"\xff\xfe" else "utf-8"
            text, kind = _odd_text(chance, files[name].decode(encoding, "replace"))
            files[name], kind = text.encode(encoding, "replace"), f"text: {kind}"
        else:
            files[name], kind = _odd_bytes(chance, files[name])
        kinds.append(kind)
    return Case(number, sample, files, tuple(kinds))


def _choose(chance, options):
    return options[int(chance.integers(len(options)))]


def _is_text(name: str) -> bool:
    return Path(name).suffix.lower() in _TEXTS or Path(name).name in _TEXTS


def _rewritten(sample: Sample, text: str, data: bytes) -> bytes:
    assert sample.rewrite is not None
    try:
        return sample.rewrite(text)
    except ValueError:
        return data


def _odd_folder(chance, files: dict[str, bytes], name: str) -> str:
    other = _choose(chance, list(files))
    kind = _choose(chance, ["lose file", "empty file", "swap files", "copy file"])
    if kind == "lose file":
        del files[name]
    elif kind == "empty file":
        files[name] = b""
    elif kind == "swap files":
        files[name], files[other] = files[other], files[name]
    else:
        files[f"{Path(name).with_suffix('')}2{Path(name).suffix}"] = files[name]
    return kind


def _odd_bytes(chance, data: bytes) -> tuple[bytes, str]:
    """Return bytes damaged in one way; half of the places lie in the first quarter, where headers are."""
    kind = _choose(chance, ["flip", "flip", "cut", "zeros", "noise", "double", "move", "integer", "integer", "integer", "splice",
                            "letters", "insert zeros"])  # fmt: skip
    out = bytearray(data)
    if not out:
        return bytes(chance.bytes(64)), "noise"
    size = len(out)
    at = int(chance.integers(max(1, size // 4 if chance.random() < 0.5 else size)))
    n = int(min(size - at, 2 ** chance.integers(0, 10)))
    if kind == "flip":
        for place in chance.integers(0, size, int(2 ** chance.integers(0, 5))) if chance.random() < 0.5 else [at]:
            out[place] ^= 1 << int(chance.integers(8))
    elif kind == "cut":
        del out[at:]
    elif kind == "zeros":
        out[at : at + n] = bytes(n)
    elif kind == "insert zeros":
        out[at:at] = bytes(n)
    elif kind == "noise":
        out[at : at + n] = chance.bytes(n)
    elif kind == "double":
        out[at:at] = out[at : at + n]
    elif kind == "move":
        block = out[at : at + n]
        del out[at : at + n]
        to = int(chance.integers(len(out) + 1))
        out[to:to] = block
    elif kind == "integer":
        width = int(_choose(chance, [1, 2, 2, 4, 4, 4, 8]))
        at -= at % min(width, 4 if chance.random() < 0.5 else 2)
        value = int(_choose(chance, _INTEGERS)) % (1 << 8 * width)
        out[at : at + width] = value.to_bytes(width, _choose(chance, ["little", "little", "big"]))
    elif kind == "splice":
        other = _choose(chance, samples())
        donor = _choose(chance, list(other.files.values()))
        out[at : at + n] = donor[at : at + n] if at < len(donor) else donor[:n]
    else:
        _odd_letters(chance, out)
    return bytes(out), kind


def _odd_letters(chance, out: bytearray) -> None:
    """Write another number or word of the same length over a text inside of binary data."""
    found = list(re.finditer(rb"[0-9.+-]{1,20}|[A-Za-z]{3,}", bytes(out)))
    if found:
        hit = _choose(chance, found)
        word = _choose(chance, _NUMBERS if chance.random() < 0.7 else _WORDS).encode()
        out[hit.start() : hit.end()] = word[: hit.end() - hit.start()].ljust(hit.end() - hit.start())


def _odd_text(chance, text: str) -> tuple[str, str]:
    kind = _choose(chance, ["number", "number", "number", "word", "word", "insert", "lose", "lose line", "double line",
                            "swap tokens", "swap lines", "delimiter", "long", "doctype", "cut"])  # fmt: skip
    at = int(chance.integers(len(text) + 1))
    lines, tokens = text.split("\n"), list(_TOKEN.finditer(text))
    if kind in {"number", "word"}:
        wanted = [t for t in tokens if (t[0][-1].isdigit() and not t[0][0].isalpha()) == (kind == "number")] or tokens
        if not wanted:
            return text + "\n", "insert"
        hit = _choose(chance, wanted)
        return text[: hit.start()] + _choose(chance, _NUMBERS if chance.random() < 0.7 else _WORDS) + text[
            hit.end() :
        ], kind
    if kind == "insert":
        return text[:at] + _choose(chance, _WORDS) + text[at:], kind
    if kind == "lose":
        return text[:at] + text[at + int(2 ** chance.integers(0, 6)) :], kind
    if kind in {"lose line", "double line"}:
        i = int(chance.integers(len(lines)))
        return "\n".join(lines[:i] + lines[i : i + 1] * (2 if kind == "double line" else 0) + lines[i + 1 :]), kind
    if kind == "swap lines":
        i, k = (int(v) for v in chance.integers(len(lines), size=2))
        lines[i], lines[k] = lines[k], lines[i]
        return "\n".join(lines), kind
    if kind == "swap tokens" and len(tokens) > 1:
        a, b = sorted((_choose(chance, tokens), _choose(chance, tokens)), key=lambda t: t.start())
        return (text if a is b else text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]), kind
    if kind == "delimiter":
        old, new = _choose(chance, ',;\t=:"[]<>\n'), _choose(chance, [",", ";", "\t", "=", ":", '"', "", "\n", "\0"])
        return text.replace(old, new, 1 if chance.random() < 0.5 else -1), kind
    if kind == "long":
        return text[:at] + _choose(chance, _RUNS) * 20_000 + _choose(chance, ["", "", "x", " x", "9"]) + text[at:], kind
    if kind == "doctype":
        return '<!DOCTYPE a [<!ENTITY x "y">]>' + text, kind
    return text[:at], "cut"


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a case: read, refused, last net, escaped or memory (died and late are the parent's to say)."""

    number: int
    outcome: str
    words: str
    seconds: float
    peak_mb: float
    silent_zero: bool = False
    warned: str = ""


def written(made: Case, folder: Path) -> Path:
    """Write a case into an empty folder and return what is to be read."""
    for name, data in made.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder / made.sample.read


def try_case(seed: int, number: int, tmp: str | None = None) -> Outcome:
    """Make a case, read it and say what came of it."""
    from evbiodist.study.problems import InputError, UnreadableImage

    made = case(seed, number)
    with tempfile.TemporaryDirectory(dir=tmp) as name, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = written(made, Path(name))
        _reset_peak()
        before, begin, zero = _peak_mb(), time.perf_counter(), False
        try:
            zero = read_whole(path) and not (made.sample.has_zeros or _MAY_ZERO & set(made.kinds))
            outcome, words = "read", ""
        except (UnreadableImage, InputError) as err:
            outcome, words = "refused", str(err)
            if "needs more memory than" in words:
                outcome = "memory"
            elif "reader failed (" in words:
                outcome = "last net"
            elif not words.strip():
                outcome, words = "escaped", "an error without a word"
        except MemoryError as err:
            outcome, words = "memory", repr(err)[:300]
        except Exception as err:
            trace = err.__traceback__
            while trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            outcome, words = "escaped", f"{type(err).__name__} at {where}: {str(err)[:300]}"
        seconds = time.perf_counter() - begin
        own = [w for w in caught if "ResourceWarning" not in w.category.__name__]
    told = f"{own[0].category.__name__}: {str(own[0].message)[:160]}" if own else ""
    return Outcome(number, outcome, words[:600], seconds, max(0.0, _peak_mb() - before), zero, told)


def read_whole(path: Path) -> bool:
    """Read a file as a run and `evbiodist info` do; whether a plane came out that is mostly zeros without a warning."""
    from evbiodist.io.registry import read, read_table
    from evbiodist.io.scan import Scan
    from evbiodist.io.stream import blocks
    from evbiodist.study.load import load_study

    if path.name == "study.toml":
        study = load_study(path)
        for source in study.observation_sources:
            read_table(study.root / source.file, source)
        return False
    found = read(path)
    if not isinstance(found, Scan):
        found.describe()
        return False
    found.describe()
    zero = False
    for start, block in blocks(found, 4):
        zero = zero or bool((np.mean(block == 0, axis=(-2, -1)) > 0.5).any())
        if start > 16:
            break
    return zero and not found.warnings


def try_cases(seed: int, numbers, tmp: str | None = None, tell: Callable[[Outcome], None] = lambda _: None) -> None:
    """Try many, and tell the outcome of each at once: a process that dies has told of all before."""
    logging.disable(logging.CRITICAL)
    warm()
    for number in numbers:
        tell(try_case(seed, number, tmp))


@functools.cache
def warm() -> None:
    """Read every valid sample once, so that no case pays for loading libraries; raise what is wrong with one."""
    for sample in samples():
        with tempfile.TemporaryDirectory() as name:
            read_whole(written(Case(0, sample, sample.files, ()), Path(name)))


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    try:
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024
    except (OSError, TypeError):
        return 0.0
