"""Blocks and slabs are the scan's own frames and slices, each once and in order, whatever holds them."""

import itertools
import threading

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.io.scan import Scan
from evbiodist.io.stream import LazyArray, ahead, blocks, full_index, slabs
from evbiodist.study.problems import UnreadableImage


class Stored(LazyArray):
    """Counts what is read of it."""

    def __init__(self, array, chunks=None, fails=False):
        self.array, self.shape, self.dtype, self.fails, self.taken = array, array.shape, array.dtype, fails, []
        if chunks:
            self.chunks = chunks

    def _take(self, index):
        if self.fails:
            raise RuntimeError("Error -3 while decompressing")
        self.taken.append((threading.current_thread().name, index))
        return self.array[index]


def _values(shape):
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.integers(1, 9),
    st.integers(1, 200),
    st.booleans(),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
def test_blocks_are_all_frames_in_order(leading, n, max_bytes, lazy, chunks):
    array = _values((*leading, 2, 3))
    axes = "TCZ"[: len(leading)].replace("Z", "A") + "YX"
    counts = Stored(array, (*chunks[: len(leading)], 2, 3)) if lazy else array
    frames = array.reshape(-1, 2, 3)
    end = 0
    for start, block in blocks(Scan("a", None, counts, axes), n, max_bytes=max_bytes):
        assert start == end
        assert 1 <= len(block) <= n
        assert block.nbytes <= max(max_bytes, frames[0].nbytes)
        np.testing.assert_array_equal(block, frames[start : start + len(block)])
        end = start + len(block)
    assert end == len(frames)


def test_volumes_are_frames():
    array = _values((2, 3, 4, 2, 2))
    got = list(blocks(Scan("a", None, array, "TCZYX"), 4))
    assert [start for start, _ in got] == [0, 4]
    np.testing.assert_array_equal(np.concatenate([b for _, b in got]), array.reshape(6, 4, 2, 2))


def test_an_image_is_one_block():
    ((start, block),) = blocks(Scan("a", None, Stored(_values((2, 3))), "YX"))
    assert (start, block.shape) == (0, (1, 2, 3))


def test_blocks_end_at_chunks_so_that_none_is_decoded_twice():
    stored = Stored(_values((20, 2, 3)), (4, 2, 3))
    assert [(s, len(b)) for s, b in blocks(Scan("a", None, stored, "TYX"), 7)] == [(i, 4) for i in range(0, 20, 4)]
    stored = Stored(_values((8, 3, 2, 2)), (2, 1, 2, 2))  # two frames of each of three bands share chunks
    assert [(s, len(b)) for s, b in blocks(Scan("a", None, stored, "TCYX"), 14)] == [(0, 12), (12, 12)]


@pytest.mark.parametrize(
    ("slices_held", "steps"), [(0, [1] * 10), (3, [3, 3, 3, 1]), (4, [4, 4, 2]), (7, [4, 4, 2]), (99, [10])]
)
def test_slabs_are_all_slices_and_end_at_chunks(slices_held, steps):
    array = _values((2, 10, 2, 3))
    scan = Scan("a", None, Stored(array, (1, 4, 2, 3)), "TZYX")
    got = list(slabs(scan, frame=1, max_bytes=max(1, 12 * slices_held)))
    assert [len(slab) for _, slab in got] == steps
    assert [z for z, _ in got] == [0, *itertools.accumulate(steps)][:-1]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in got]), array[1])


def test_lazy_pixels_are_read_in_another_thread_ahead_of_the_caller():
    stored = Stored(_values((6, 2, 3)))
    stream = blocks(Scan("a", None, stored, "TYX"), 1)
    next(stream)
    done = threading.Event()
    for _ in range(200):  # the second block is under way although nobody asked for it
        if len(stored.taken) >= 2:
            break
        done.wait(0.01)
    assert len(stored.taken) == 2
    assert all(name.startswith("evbiodist-read") for name, _ in stored.taken)
    stream.close()
    assert len(stored.taken) == 2
    assert not any(t.name.startswith("evbiodist-read") for t in threading.enumerate())


def test_frames_in_memory_are_views():
    array = _values((4, 2, 3))
    assert all(np.shares_memory(block, array) for _, block in blocks(Scan("a", None, array, "TYX"), 2))


def test_zarr_and_numpy_stream_alike(tmp_path):
    array = _values((7, 3, 5, 4))
    stored = zarr.create_array(tmp_path / "a", shape=array.shape, chunks=(2, 3, 4, 4), dtype=array.dtype)
    stored[...] = array
    for a, b in zip(blocks(Scan("a", None, array, "TCYX"), 6), blocks(Scan("a", None, stored, "TCYX"), 6), strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])


def test_what_decoders_raise_is_said_with_the_frames():
    scan = Scan("a.tif", None, Stored(_values((6, 2, 3)), fails=True), "TYX")
    with pytest.raises(
        UnreadableImage, match=r"a\.tif: frames 1 to 4 cannot be decoded \(RuntimeError: Error -3 .*copy it again"
    ):
        next(blocks(scan, 4))
    volume = Scan("a.zarr", None, Stored(_values((6, 2, 3)), fails=True), "ZYX")
    with pytest.raises(UnreadableImage, match=r"a\.zarr: slices 1 to 6 cannot be decoded"):
        next(slabs(volume))


def test_what_cannot_be_asked_is_refused_before_anything_is_read():
    scan = Scan("a", None, np.ones((2, 3, 2, 2)), "TZYX")
    with pytest.raises(ValueError, match="n is 0; expected 1 or more"):
        blocks(scan, 0)
    with pytest.raises(ValueError, match="max_bytes is -1"):
        slabs(scan, max_bytes=-1)
    with pytest.raises(ValueError, match="holds 2 volumes, numbered from 0; there is no volume 2"):
        slabs(scan, frame=2)
    with pytest.raises(ValueError, match="has axes 'YX'; slabs are of a volume"):
        slabs(Scan("a", None, np.ones((2, 2)), "YX"))


@given(st.data())
def test_a_full_index_means_what_numpy_means(data):
    array = _values((3, 4, 5))
    part = st.one_of(st.integers(-3, 2), st.slices(3))
    keys = data.draw(st.lists(part, max_size=3))
    if data.draw(st.booleans()):
        keys.insert(data.draw(st.integers(0, len(keys))), Ellipsis)
    np.testing.assert_array_equal(array[full_index(tuple(keys), array.shape)], array[tuple(keys)])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (3, "index 3 is outside an axis of extent 3"),
        ((0, 0, 0, 0), "4 parts, the array 3 axes"),
        ((Ellipsis, Ellipsis), "2 parts"),
        ([0, 1], "type list is not read from disk"),
        (None, "type NoneType"),
        (True, "type bool"),
        (1.0, "type float"),
        (np.array([0, 1]), "type ndarray"),
    ],
)
def test_other_indices_are_refused(key, words):
    with pytest.raises(IndexError, match=words):
        full_index(key, (3, 4, 5))


def test_a_lazy_array_is_an_array_to_numpy():
    array = _values((3, 2, 2))
    lazy = Stored(array)
    assert (lazy.ndim, lazy.size, lazy.nbytes, len(lazy)) == (3, 12, 24, 3)
    np.testing.assert_array_equal(np.asarray(lazy), array)
    assert np.asarray(lazy, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(Scan("a", None, lazy, "TYX").signal(), array)
    np.testing.assert_array_equal(np.stack(list(Scan("a", None, lazy, "TYX").frames())), array)


def test_more_than_memory_holds_is_not_read_at_once():
    huge = Stored(np.broadcast_to(np.uint16(1), (10_000, 1024, 1024)))
    with pytest.raises(
        ValueError, match=r"19\.5 GiB of pixels are asked for at once, over the limit of 8 GiB; go through"
    ):
        huge[...]
    assert huge[7, :1, :1].tolist() == [[1]]


def test_an_error_in_a_job_reaches_the_caller_after_the_results_before_it():
    def job(n):
        if n == 2:
            raise KeyError("chunk")
        return np.full(1, n)

    stream = ahead((lambda n=n: job(n)) for n in range(4))
    assert [int(next(stream)[0]), int(next(stream)[0])] == [0, 1]
    with pytest.raises(KeyError, match="chunk"):
        next(stream)
