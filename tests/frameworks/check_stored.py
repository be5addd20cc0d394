"""Is in the store what the trainers wrote: all that lived long enough, byte by byte, under its step, and nothing else?"""
import pathlib
import shutil
from collections import Counter
from typing import NamedTuple

from recorder import describe, read_records

MARKED_S = 1.0  # a checkpoint that stays so long after its marker is stored; without a marker, settle= longer


class Row(NamedTuple):
    kind: str
    written: int
    lived: int  # long enough
    stored: int
    missed: list  # (record, reason); only those that lived long enough
    failures: list


def lifetime(record):
    return float("inf") if record["end"] is None else (record["end"] - record["time"]) / 1e9


def reason(record, events):
    """The daemon's last word on it."""
    name = f"{record['run']}@{record['step']} "
    said = [text for _, text in events if record["path"] + "'" in text or text.startswith(name) or f" {name}" in text]
    return said[-1].replace(record["path"], pathlib.Path(record["path"]).name) if said else "the daemon said nothing of it"


def restore_all(tpded, run, scratch):
    """[(listed, described)] of every version of a run that the store holds."""
    found = []
    for item in tpded.listed():
        if item["run"] != run and not item["run"].startswith(run + "/"):
            continue
        shutil.rmtree(scratch, ignore_errors=True)
        done = tpded.tpdectl("restore", item["name"], "--to", scratch)
        found.append((item, describe(scratch) if done.returncode == 0 else done.stderr.strip()))
    return found


def check_run(tpded, root, run, settle, events):
    """A row for each kind of checkpoint in a run."""
    records = read_records(root, run)
    stored, failures, rows = restore_all(tpded, run, pathlib.Path(root, "scratch")), [], []
    known = {}  # (run, step, contents): records
    key = lambda name, step, files: (name, step, repr(sorted(files.items())))
    for record in records:
        known.setdefault(key(record["run"], record["step"], record["files"]), []).append(record)
    matched = set()
    for item, files in stored:
        if isinstance(files, str):
            failures.append(f"{item['name']} cannot be restored: {files}")
        elif key(item["run"], item["step"], files) in known:
            matched.add(key(item["run"], item["step"], files))
        else:
            near = [record for record in records if record["files"].keys() == files.keys()]
            failures.append(f"{item['name']} ('{item['source']}') equals nothing that was written"
                            + (": " + difference(near[-1]["files"], files) if near else f": it has {sorted(files)}"))
    for kind in dict.fromkeys(record["kind"] for record in records):
        own = [record for record in records if record["kind"] == kind]
        long_enough = [r for r in own if lifetime(r) >= (MARKED_S if r["marked"] else settle + MARKED_S)]
        is_stored = lambda record: key(record["run"], record["step"], record["files"]) in matched
        missed = [(record, reason(record, events)) for record in long_enough if not is_stored(record)]
        rows.append(Row(kind, len(own), len(long_enough), sum(map(is_stored, own)), missed, failures))
        failures = []  # once
    return rows or [Row(run, 0, 0, 0, [], failures + [f"{run}: nothing was written"])]


def difference(written, restored):
    names = [name for name in written if written[name] != restored[name]]
    return "; ".join(f"{name}: {restored[name][2]} of {written[name][2]} bytes, mode {restored[name][1]:o}" for name in names)


def check(tpded, root, scenarios, settle):
    """The table as text, and what does not hold."""
    events, rows, failures = tpded.events(), [], []
    for scenario in scenarios:
        own = check_run(tpded, root, scenario.run, settle, events)
        rows += own
        if own[0].lived < scenario.minimum:
            failures.append(f"{scenario.run}: only {own[0].lived} checkpoints lived long enough: that proves too little")
    for item in tpded.listed():
        if item["run"].split("/")[0] not in {scenario.run for scenario in scenarios}:
            failures.append(f"{item['name']}: there is no such run")
    text = [f"{'scenario':22} {'written':>8} {'lived long enough':>18} {'stored':>7} {'missed':>7}"]
    for row in rows:
        text.append(f"{row.kind:22} {row.written:8} {row.lived:18} {row.stored:7} {len(row.missed):7}")
        for why, count in Counter(why for _, why in row.missed).items():
            text.append(f"{'':22} {count} missed: {why}")
        failures += [f"{row.kind}: step {record['step']} lived {lifetime(record):.2f} s and is not stored: {why}"
                     for record, why in row.missed] + row.failures
    return "\n".join(text), failures
