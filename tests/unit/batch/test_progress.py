"""What a run tells while it goes on: counts, rate, the time that is left, failures so far, for people and machines."""

import json
import os
import pty
import subprocess
import sys

from evbiodist.batch.pipeline import run_study
from evbiodist.batch.progress import Pace
from evbiodist.study.load import load_study


def command(study, out, *more):
    return [sys.executable, "-m", "evbiodist", "quantify", str(study / "study.toml"), "--out", str(out), *more]


def test_rate_and_time_left_follow_the_work_of_this_run_alone():
    times, told = iter([100.0, 110.0, 120.0, 130.0]), []
    pace = Pace(told.append, lambda: next(times))
    for done, failed in ((4000, 0), (4005, 0), (4010, 1), (5000, 1)):  # an earlier run did 4,000
        pace({"event": "scan", "done": done, "total": 5000, "failed": failed})
    assert [e["rate_per_s"] for e in told] == [None, 0.5, 0.5, 1000 / 30]
    assert [e["eta_s"] for e in told] == [None, 995 / 0.5, 990 / 0.5, 0.0]
    assert [e["failed"] for e in told] == [0, 0, 1, 1]


def test_parts_of_each_volume_have_a_pace_of_their_own():
    times, told = iter([0.0, 10.0, 50.0, 60.0]), []
    pace = Pace(told.append, lambda: next(times))
    for name, done in (("a", 0), ("a", 2), ("b", 5), ("b", 6)):
        pace({"event": "part", "name": name, "done": done, "total": 10})
    assert [e["rate_per_s"] for e in told] == [None, 0.2, None, 0.1]
    assert told[1]["eta_s"] == 40.0
    pace({"event": "nca", "done": 1, "total": 1})
    assert told[-1] == {"event": "nca", "done": 1, "total": 1}


def test_a_run_counts_every_scan_and_every_failure(few_scans, tmp_path):
    (few_scans / "images").mkdir(exist_ok=True)
    scans = (few_scans / "scans.csv").read_text()
    broken = next(line.split(",")[scans.splitlines()[0].split(",").index("file")] for line in scans.splitlines()[1:])
    (few_scans / broken).write_bytes(b"II*\0 nothing")
    told = []
    result = run_study(load_study(few_scans), tmp_path / "out", quantify_only=True, progress=told.append)
    scans_told = [e for e in told if e["event"] == "scan"]
    assert [e["done"] for e in scans_told] == list(range(len(scans_told)))
    assert scans_told[-1]["done"] == scans_told[-1]["total"] == 3
    assert scans_told[-1]["failed"] == len(result.failures) == 1
    assert next(e for e in scans_told if "reason" in e)["name"] == result.failures[0]["name"]
    assert scans_told[-1]["rate_per_s"] > 0
    assert scans_told[-1]["eta_s"] == 0
    assert [e["done"] for e in told if e["event"] == "inputs"] == [1, 2, 3]


def test_machines_get_the_same_as_json_lines(few_scans, tmp_path):
    done = subprocess.run(command(few_scans, tmp_path / "out", "--json"), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    last = [e for e in events if e["event"] == "scan"][-1]
    assert (last["done"], last["total"], last["failed"]) == (3, 3, 0)
    assert last["rate_per_s"] > 0
    assert last["eta_s"] == 0
    again = subprocess.run(command(few_scans, tmp_path / "out", "--json"), capture_output=True, text=True, timeout=240)
    events = [json.loads(line) for line in again.stdout.splitlines()]
    [first] = [e for e in events if e["event"] == "scan"]
    assert (first["resumed"], first["done"], first["rate_per_s"]) == (3, 3, None)


def test_a_person_sees_a_bar_with_counts_and_pace(few_scans, tmp_path):
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command(few_scans, tmp_path / "out"), stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    try:
        while piece := os.read(leader, 4096):
            seen += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=240) == 0
    text = seen.decode()
    assert "3/3" in text
    assert " left" in text
    assert "a minute" in text or "a second" in text
    assert "Traceback" not in text
