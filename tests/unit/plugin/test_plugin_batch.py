"""What a run tells, in words, and where a session is saved; without a window."""

import json

import pytest
from napari_evbiodist.batch_model import Run, command, few, home_of, read_results, results_of, save, unsaved
from napari_evbiodist.session import Session

import evbiodist as ev
from evbiodist.batch.pipeline import run_study
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS


def line(event, **facts):
    return json.dumps({"event": event, **facts})


def scans(run, *, to, total=10, start=0, every=2.0, failed=()):
    """Let a run tell of scans, one every some seconds."""
    run.hear(line("scan", done=start, total=total, failed=0, resumed=start), 0.0)
    for i in range(start + 1, to + 1):
        bad = sum(1 for f in failed if f <= i)
        run.hear(line("scan", done=i, total=total, failed=bad, name=f"s{i}"), every * (i - start))


def test_rate_and_time_left_count_what_this_run_did_and_not_what_it_took_over():
    run = Run()
    scans(run, to=6, start=4)
    assert run.per_minute() == 30.0
    assert run.words() == "measuring scans: 6 of 10, 30 a minute, about 8 s left, 4 taken over from an earlier run"


def test_nothing_is_guessed_from_one_scan():
    run = Run()
    assert run.words() == "starting"
    scans(run, to=1)
    assert run.words() == "measuring scans: 1 of 10"


def test_the_scan_that_failed_is_named_before_the_run_is_over():
    run = Run()
    scans(run, to=4, failed=(2,))
    assert [name for name, why in run.scans if why] == ["s2"]
    assert run.words().endswith(", 1 failed")


def test_steps_after_the_scans_are_said():
    run, steps = Run(), []
    scans(run, to=10)
    for event in ("scan", "nca", "fitted", "compared", "written"):
        if event != "scan":
            run.hear(line(event, done=1, total=1), 30.0)
        steps.append(run.step)
    assert steps == ["analysing curves", "fitting models", "comparing labels", "writing tables", "drawing the report"]


def test_everything_that_is_wrong_stays_readable_the_worst_first():
    run = Run()
    run.hear(line("problem", text="scan 'a' will fail", fatal=False), 0.0)
    run.hear(line("message", text="failed: b: truncated", failure={"name": "b", "reason": "truncated"}), 1.0)
    run.hear("a library's own words\n", 1.0)
    run.overhear("on standard error\n")
    run.overhear("  \n")
    run.hear(line("error", text="the folder is taken"), 2.0)
    assert run.sentences() == ["the folder is taken", "b: truncated", "scan 'a' will fail", "a library's own words",
                               "on standard error"]  # fmt: skip


@pytest.mark.parametrize("odd", ["[1, 2]", "17", '"event"', '{"no": "event"}', "{broken"])
def test_a_line_that_is_no_event_is_kept_as_it_is(odd):
    run = Run()
    run.hear(odd, 0.0)
    assert run.said == [odd]


def test_every_ending_is_a_sentence_with_what_to_do():
    run = Run()
    assert run.ending(2, False, False) == "Nothing was run; what is wrong stands below."
    scans(run, to=3)
    assert (
        run.ending(15, True, True)
        == "Called off after 3 of 10 scans; the same button takes the run up where it stopped."
    )
    assert run.ending(0, True, False).startswith("The run's program died after 3 of 10 scans (out of memory")
    assert run.ending(-9, False, False).startswith("The run's program died after 3 of 10 scans (out of memory")
    assert run.ending(2, False, False) == "The run stopped after 3 of 10 scans; why stands below."
    run.hear(line("message", text="5 values, 0 of 10 scans failed; open out/report.html", failed=0), 9.0)
    run.hear(line("message", text="  liver uptake, DiR  50 % of dose"), 9.0)
    assert run.ending(0, False, False) == "Done: 5 values, 0 of 10 scans failed."
    assert run.ending(1, False, False) == "Done, not whole: 5 values, 0 of 10 scans failed; why stands below."


def test_a_flood_of_sentences_is_one_notification():
    assert few(["a", "b"]) == "a\nb"
    assert few(list("abcde")) == "a\nb\nc\n... and 2 more, in the batch panel"


def test_the_program_gets_every_argument_whole(tmp_path):
    settings, out = tmp_path / "it's a\tstudy" / "settings.toml", tmp_path / "my results"
    assert command(settings, out, 3)[-8:] == [
        "evbiodist",
        "run",
        str(settings),
        "--out",
        str(out),
        "--json",
        "--workers",
        "3",
    ]


def test_a_save_goes_to_a_folder_of_its_own_and_again_to_the_same(few_scans):
    session = Session.open(few_scans)
    home = home_of(session)
    assert (home, results_of(session)) == (few_scans / "evbiodist_session", few_scans / "evbiodist_results")
    session.change_settings(kinetics={"max_extrap_pct": 15})
    assert unsaved(session)
    session.saved = save(session.without_pixels(), home)
    assert not unsaved(session)
    assert home_of(session) == home
    # the study opened anew leaves the earlier session alone; the session opened anew goes on in its folder
    assert home_of(Session.open(few_scans)) == few_scans / "evbiodist_session_2"
    again = Session.open(home)
    assert home_of(again) == home
    assert again.study.settings.kinetics.max_extrap_pct == 15
    assert not unsaved(again)


def test_what_is_sent_away_to_be_saved_has_no_pixels_and_leaves_the_session_alone(few_scans):
    session = Session.open(few_scans)
    session.run_scan("NanoLuc_0.5h_1")
    image = session.scan("NanoLuc_0.5h_1")
    light = session.without_pixels()
    assert light.measured() == []
    assert session.measured() == ["NanoLuc_0.5h_1"]
    assert session.scan("NanoLuc_0.5h_1") is image
    assert light.study is session.study


def cell(value):
    """Return a number or word as a table shows it; None for what is missing."""
    missing = value is None or value == "" or value != value
    return None if missing else float(value) if isinstance(value, int | float) else str(value)


def test_tables_of_results_read_back_to_the_last_digit(few_scans, tmp_path):
    out = tmp_path / "out"
    result = run_study(ev.load_study(few_scans), out)
    found = read_results(out)
    shown = found.tables["parameters"]
    assert [list(row.values()) for row in shown] == [
        [cell(row[c]) for c in PARAMETER_COLUMNS] for row in result.parameters
    ]
    assert sum(1 for row in shown if isinstance(row["value"], float)) > 20
    assert next(iter(found.tables)) == "parameters"
    assert all(found.tables.values())
    assert found.report is None


def test_an_unfinished_run_is_not_shown_as_results(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run; run the study first"):
        read_results(tmp_path)
