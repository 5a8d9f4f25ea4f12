"""Change one operator of the core at a time and see whether the quick tests notice; survivors show untested promises.

python benchmarks/mutation.py [target ...] --state DIR [--sample 150] [--seconds 600] [--again] [--table docs/mutation.md]

Needs cosmic-ray (8.x) beside the test extras: its operators make the mutants. Its own runner starts pytest afresh for
every mutant, which here means 3 s of imports each time; this one forks a process that has imported what lies outside
the package, runs the tests in a copy of the checkout, and puts the tests that killed before first.
"""

import argparse
import ast
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("evbiodist", "tests", "plugins", "sample_data", "pyproject.toml")
#: By target: (file, names of its functions or none for all of it), and tests beside the doctests of these files.
TARGETS = {
    "nca": (
        (
            ("evbiodist/kinetics/nca/curve.py", ()),
            ("evbiodist/kinetics/nca/slopes.py", ()),
            ("evbiodist/kinetics/nca/choices.py", ()),
            ("evbiodist/kinetics/nca/parameters.py", ()),
        ),
        ("unit/kinetics/test_nca.py", "unit/kinetics/test_nca_promises.py",
         "unit/kinetics/test_nca_slopes.py", "unit/kinetics/test_nca_rules.py",
         "unit/kinetics/test_lambda_z_choice.py", "laws/test_nca_laws.py", "oracles/test_nca_oracles.py"),
    ),
    "solver": (
        (("evbiodist/kinetics/models/solve.py", ()),),
        ("unit/kinetics/test_inputs.py", "unit/kinetics/test_solver_promises.py", "laws/test_graph_laws.py",
         "oracles/test_model_oracles.py"),
    ),
    "estimator": (
        (("evbiodist/imaging/estimator.py", ()), ("evbiodist/imaging/footprints.py", ())),
        ("unit/imaging/test_estimator.py", "unit/imaging/test_estimator_promises.py", "unit/imaging/test_footprints.py",
         "unit/imaging/test_quantify.py", "laws/test_imaging_laws.py", "oracles/test_gtm_oracle.py"),
    ),
    "pct_id": (
        (
            ("evbiodist/imaging/quantify.py", ("to_pct_id", "to_unit", "_spacing")),
            ("evbiodist/study/units.py", ()),
        ),
        ("unit/imaging/test_quantify.py", "unit/imaging/test_series.py", "unit/study/test_unit_promises.py",
         "unit/study/test_corrections.py", "laws/test_imaging_laws.py", "laws/test_nca_laws.py"),
    ),
}  # fmt: skip
#: A test slower than this is left out, except when survivors are tried again.
QUICK_S = 0.5
SWAPS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax", "argmax": "argmin",
         "any": "all", "all": "any"}  # fmt: skip
OPERATORS = [f"core/ReplaceBinaryOperator_{pair}" for pair in (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "Mod_Mul", "FloorDiv_Mul", "BitAnd_BitOr", "BitOr_BitAnd",
)] + [f"core/ReplaceComparisonOperator_{pair}" for pair in (
    "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot",
    "IsNot_Is",
)] + [f"core/{name}" for name in (
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "NumberReplacer",
    "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not",
    "ZeroIterationForLoop", "ReplaceContinueWithBreak", "ReplaceBreakWithContinue",
)] + ["swap"]  # fmt: skip


class Swap:
    """An operator as cosmic-ray has them, which it lacks: the other of min and max, any and all."""

    def mutation_positions(self, node):
        called = node.type == "name" and node.get_next_leaf() is not None and node.get_next_leaf().value == "("
        if called and node.value in SWAPS and node.get_previous_leaf().value != "def":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.value = SWAPS[node.value]
        return node


def operator(name):
    from cosmic_ray import plugins

    return Swap() if name == "swap" else plugins.get_operator(name)()


def spans(source, names):
    """Lines of the functions named (all without names), less the places of annotations, as (start, end) pairs."""
    tree = ast.parse(source)
    lines = [(n.lineno, n.end_lineno) for n in ast.walk(tree) if getattr(n, "name", None) in names]
    notes = []
    for node in ast.walk(tree):
        notes += [x for x in (getattr(node, "annotation", None), getattr(node, "returns", None)) if x is not None]
    places = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in notes]
    return lines or [(1, len(source))], places


def places_of(file, names):
    """Every place of a file where an operator applies."""
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (ROOT / file).read_text()
    lines, notes = spans(source, names)
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        op, occurrence = operator(name), -1
        for node in nodes:
            for start, _ in op.mutation_positions(node):
                occurrence += 1
                if any(a <= start[0] <= b for a, b in lines) and not any(a <= start < b for a, b in notes):
                    yield {"file": file, "line": start[0], "operator": name, "occurrence": occurrence,
                           "sha": hashlib.sha256(source.encode()).hexdigest()[:12]}  # fmt: skip


def mutated(row):
    """The source with one change made, or None where that is no Python or the same program."""
    from cosmic_ray.mutating import mutate_code

    source = (ROOT / row["file"]).read_text()
    changed = mutate_code(source, operator(row["operator"]), row["occurrence"])
    try:
        same = changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
    except SyntaxError:
        return None
    return None if same else changed


def shown(source, changed):
    """The first line that differs, before and after."""
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    return next([a.strip(), b.strip()] for a, b in pairs if a != b)


class Replaced(MetaPathFinder):
    """Gives one module another source, whatever lies on disk."""

    def __init__(self, file, source):
        self.file, self.source = Path(file).resolve(), source
        self.name = ".".join(Path(file).with_suffix("").parts)

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        source = self.source

        class Loader(SourceFileLoader):
            def get_code(self, fullname):
                return compile(source, self.path, "exec", dont_inherit=True)

        return spec_from_file_location(name, self.file, loader=Loader(name, str(self.file)))


class Watch:
    """pytest plugin: leaves tests out, puts killers first, notes durations and the first failure."""

    def __init__(self, changed, omitted, kills, took):
        self.changed, self.omitted, self.kills, self.known = changed, omitted, kills, took
        self.took, self.failed = {}, []

    def pytest_configure(self, config):
        # now, because pytest's own finder, first until here, reads files of the command line from the disk
        if self.changed is not None:
            sys.meta_path.insert(0, Replaced(*self.changed))

    def pytest_collection_modifyitems(self, items):
        items[:] = [i for i in items if i.nodeid not in self.omitted]
        items.sort(key=lambda i: (-self.kills.get(i.nodeid, 0), self.known.get(i.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report):
        # setup belongs to whichever test comes first, so that it says nothing about this one
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration * (report.when == "call")
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)


def child(pipe, folder, changed, tests, omitted, kills, took, first):
    """Run tests in this forked process and send back what came out."""
    os.chdir(folder)
    os.setpgid(0, 0)
    sys.path.insert(0, str(folder))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    import pytest
    from hypothesis import settings

    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=["explicit", "generate"]
    )
    settings.load_profile("mutation")
    watch = Watch(changed, omitted, kills, took)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:pytest-qt", "-p", "no:napari", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"] + (["-x"] if first else [])
    code = int(pytest.main([*options, *tests], plugins=[watch]))
    names = [m for m in sys.modules if getattr(sys.modules[m], "__file__", None)]
    outside = [m for m in names if not str(sys.modules[m].__file__).startswith(str(folder))]
    pipe.send({"code": code, "took": watch.took, "failed": watch.failed, "modules": [] if first else outside})
    pipe.close()
    os._exit(0)


def run(limit_s, *args):
    """Fork, run, and return the answer; None when time ran out, a code of -1 when the process died."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(there, *args))
    process.start()
    there.close()
    try:
        if not here.poll(limit_s):
            return None
        return here.recv()
    except EOFError:
        return {"code": -1, "took": {}, "failed": ["the process died"], "modules": []}
    finally:
        process.kill()
        process.join()
        here.close()


def preload(modules):
    """Import what tests need from outside the package, once for all mutants."""
    for name in modules:
        if not re.match(
            r"(_pytest|pytest|hypothesis|_hypothesis|test_|conftest|__main__|evbiodist|napari_evbiodist)", name
        ):
            try:
                importlib.import_module(name)
            except Exception as err:  # some can only be imported by their parents
                print(f"  not beforehand: {name} ({type(err).__name__})")


def baseline(folder, tests, every):
    """Run tests on the unchanged source: durations, and which of them are left out."""
    answer = run(600, folder, None, tests, (), {}, {}, False)
    if answer is None or answer["code"] not in (0, 1):
        raise SystemExit(f"the tests cannot be run unchanged: {answer and answer['code']}; try them with pytest")
    preload(answer["modules"])
    broken = set(answer["failed"])
    for name in sorted(broken):
        print(f"  left out, fails unchanged: {name}")
    slow = set() if every else {k for k, s in answer["took"].items() if s > QUICK_S}
    quick = sum(s for k, s in answer["took"].items() if k not in slow)
    print(f"  {len(answer['took'])} tests, {len(slow)} over {QUICK_S} s left out; the others take {quick:.1f} s")
    return broken | slow, answer["took"], quick


def key(row):
    return row["file"], row["sha"], row["operator"], row["occurrence"]


def rows_of(state, target, first=False):
    """What is known of a target, the last word on each mutant, or the first."""
    path = state / f"{target}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {key(r): r for r in (reversed(rows) if first else rows)}


def share(rows):
    """Percent that was noticed, with its 95 % interval after Wilson."""
    from scipy.stats import binomtest

    answer = binomtest(sum(r["result"] != "survived" for r in rows), len(rows))
    low, high = answer.proportion_ci(method="wilson")
    return f"{100 * answer.statistic:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def copy_of(folder):
    for name in COPIED:
        given = ROOT / name
        if given.is_dir():
            shutil.copytree(given, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.zarr"))
        else:
            shutil.copy(given, folder / name)


def try_target(target, asked, folder):
    files, tests = TARGETS[target]
    found = [row for file, names in files for row in places_of(file, names)]
    random.Random(asked.seed).shuffle(found)
    known = rows_of(asked.state, target)
    sample = found[: asked.sample]
    todo = [m for m in sample if key(m) not in known or (asked.again and known[key(m)]["result"] == "survived")]
    print(f"{target}: {len(found)} mutants, {len(sample)} in the sample, {len(todo)} to try", flush=True)
    (asked.state / f"{target}.total").write_text(str(len(found)))
    if not todo:
        return
    paths = [p for p in (*(f"tests/{t}" for t in tests), *(f for f, _ in files)) if (folder / p).exists()]
    omitted, took, quick = baseline(folder, paths, asked.again)
    kills = {}
    end = time.monotonic() + asked.seconds
    with (asked.state / f"{target}.jsonl").open("a") as log:
        for row in todo:
            if time.monotonic() > end:
                print("  time is up; run again to go on")
                return
            begin = time.monotonic()
            changed = mutated(row)
            if changed is None:
                continue
            row["change"] = shown((ROOT / row["file"]).read_text(), changed)
            answer = run(15 + 3 * quick, folder, (row["file"], changed), paths, omitted, kills, took, True)
            killer = answer["failed"][0] if answer and answer["failed"] else ""
            kills[killer] = kills.get(killer, 0) + 1
            result = "timeout" if answer is None else "survived" if answer["code"] == 0 else "killed"
            if answer and answer["code"] in (4, 5):
                raise SystemExit(f"pytest found no test (code {answer['code']}); correct the target's paths")
            row |= {"result": result, "killer": killer, "seconds": round(time.monotonic() - begin, 2)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            if result != "killed":
                print(f"  {row['file']}:{row['line']} {result}: {row['change'][0]}  ->  {row['change'][1]}", flush=True)


def cell(text):
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def write_table(state, path):
    """Write counts and survivors; a reason already written beside a survivor is kept."""
    old = path.read_text() if path.exists() else ""
    why = {m[1]: m[2] for m in re.finditer(r"^\| \S+:\d+ \| (.*) \| ([^|]*) \|$", old, re.MULTILINE)}
    head = old.split("| target |")[0] or "# Mutation testing\n\n"
    out = [
        head + "| target | places | tried | first pass (95 %) | killed | timeouts | survived | now |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    survivors = []
    for target, (files, _) in TARGETS.items():
        now = {f: hashlib.sha256((ROOT / f).read_bytes()).hexdigest()[:12] for f, _ in files}
        rows = [r for r in rows_of(state, target).values() if r["sha"] == now.get(r["file"])]
        if not rows:
            continue
        n = {k: sum(r["result"] == k for r in rows) for k in ("killed", "timeout", "survived")}
        begun = [r for r in rows_of(state, target, first=True).values() if r["sha"] == now.get(r["file"])]
        total = (state / f"{target}.total").read_text()
        noticed = 100 * (1 - n["survived"] / len(rows))
        out.append(
            f"| {target} | {total} | {len(rows)} | {share(begun)} | {n['killed']} | {n['timeout']} | {n['survived']} "
            f"| {noticed:.0f} % |"
        )
        survivors += [(target, r) for r in rows if r["result"] == "survived"]
    for target in dict.fromkeys(t for t, _ in survivors):
        out += ["", f"## Survivors: {target}", "", "| place | change | why |", "|---|---|---|"]
        for r in sorted((r for t, r in survivors if t == target), key=lambda r: (r["file"], r["line"])):
            change = f"{cell(r['change'][0])} → {cell(r['change'][1])}"
            out.append(f"| {r['file']}:{r['line']} | {change} | {why.get(change, 'not looked at yet').strip()} |")
    path.write_text("\n".join(out) + "\n")


def main():
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    given.add_argument("--state", type=Path, required=True, help="folder that keeps results; runs go on from it")
    given.add_argument("--sample", type=int, default=150, help="mutants of each target, drawn at random")
    given.add_argument("--seed", type=int, default=7)
    given.add_argument("--seconds", type=float, default=float("inf"), help="of each target")
    given.add_argument("--again", action="store_true", help="try survivors again, slow tests included")
    given.add_argument("--table", type=Path, help="write this page from what is known")
    asked = given.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        given.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    asked.state = asked.state.resolve()
    asked.state.mkdir(parents=True, exist_ok=True)
    table = asked.table and asked.table.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "checkout"
        folder.mkdir()
        copy_of(folder)
        for target in asked.targets or ([] if table else TARGETS):
            try_target(target, asked, folder)
    if table:
        write_table(asked.state, table)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
