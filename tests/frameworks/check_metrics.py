"""Are metrics stored with the checkpoints that they are of, and does RUN@best:METRIC name the best one that is stored?

What is right is read by Python from the restored trainer_state.json, or known from the program that trained (train_lightning.py), whose
scores are made up.
"""
import json
import shutil

import train_lightning


def trainer_loss(tpded, item):
    """What the Trainer logged last at that step."""
    target = tpded.directory / "metrics"
    shutil.rmtree(target, ignore_errors=True)
    tpded.tpdectl("restore", item["name"], "--to", target, "--file", "trainer_state.json")
    with open(target / "trainer_state.json", encoding="utf-8") as file:
        state = json.load(file)
    return [entry["eval_loss"] for entry in state["log_history"] if entry["step"] == state["global_step"] and "eval_loss" in entry][-1]


def lightning_score(_, item):
    """Logged before the step is counted."""
    return train_lightning.SCORES[(item["step"] - 1) // train_lightning.EVERY]


EXPECTED = {"hf-best": ("eval_loss", "best", trainer_loss), "lightning": ("score", "min", lightning_score)}


def check_one(tpded, run, say):
    metric, way, expected = EXPECTED[run]
    items = [item for item in tpded.listed() if item["run"] == run and metric in item["metrics"]]
    told = {item["step"]: item["metrics"][metric] for item in items}
    wrong = [item["name"] for item in items if item["metrics"][metric] != expected(tpded, item)]
    best = tpded.ask("show", f"{run}@{way}:{metric}")["step"] if told else None
    say(f"metrics: {run}: {metric} of {len(told)} steps, {way} at {best}")
    if len(told) < 3 or wrong or best != min(told, key=told.get):
        return [f"{run}: {metric} is stored as {told}, wrongly of {wrong}, and {way} is said to be {best}"]
    return []


def check(tpded, scenarios, say):
    return [failure for scenario in scenarios if scenario.run in EXPECTED for failure in check_one(tpded, scenario.run, say)]
