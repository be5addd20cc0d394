"""Does training go on from a restored checkpoint as from the original? The losses must be the same to the last bit.

The framework itself resumes, each time in a process of its own, from a copy that the trainer made when it wrote the checkpoint, and from
what tpdectl restores (rotation has deleted the original in between, where there is one).
"""
import concurrent.futures
import shutil

from recorder import read_records

# run, which of its checkpoints; the directory that a single file is restored to makes no difference to a framework
RESUMED = {"hf-limit1": 2, "lightning": 1, "dcp-sync": 1, "accelerate": 1, "deepspeed-zero3": 1, "orbax": 1}


def losses(trainers, scenario, checkpoint):
    text = trainers.run(scenario.program, scenario.ranks, "--resume", str(checkpoint))
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("losses ")]
    return lines[-1] if lines else []


def check_one(tpded, trainers, scenario, say):
    root, run = trainers.root, scenario.run
    record = [r for r in read_records(root, run) if r["kind"] == run][RESUMED[run]]
    name = record["path"].rsplit("/", 1)[1]
    original, restored = root / "kept" / run / name, root / "restored" / run / name
    shutil.rmtree(root / "restored" / run, ignore_errors=True)
    to = restored if original.is_dir() else restored.parent
    stored = [item["name"] for item in tpded.listed() if item["source"] == record["path"] and item["step"] == record["step"]]
    done = tpded.tpdectl("restore", stored[-1], "--to", to) if stored else None
    if done is None or done.returncode != 0:
        return [f"{run}: '{name}' cannot be restored: {done.stderr.strip() if done else 'it is not stored'}"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        from_original, from_restored = pool.map(lambda checkpoint: losses(trainers, scenario, checkpoint), (original, restored))
    same = from_original == from_restored and len(set(from_original)) > 3
    say(f"resumed: {run}@{record['step']}, {len(from_original)} losses, {'the same' if same else 'NOT the same'}: "
        + " ".join(f"{float.fromhex(loss):.6f}" for loss in from_original[:3]) + " ...")
    return [] if same else [f"{run}: resumed from the original {from_original}, from the restored {from_restored}"]


def check(tpded, trainers, scenarios, say):
    return [failure for scenario in scenarios if scenario.run in RESUMED
            for failure in check_one(tpded, trainers, scenario, say)]
