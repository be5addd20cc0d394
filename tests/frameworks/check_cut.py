"""Do tensors that are cut differently since the checkpoint before cost what they cost where nothing has moved?

Of the runs of train_reshard.py: the last checkpoint before each change of ranks and the first two after it. The first and the last of
these three are deltas of tensors that are cut as before; the second is the one in question. It must not cost more than the cheaper of
these two, or than the same step in the run that never changes, where that is dearer: steps differ by what their batches hold, rows of an
embedding above all. (Weights are cheaper there, since after a change two checkpoints are stored without what was before the last one.) It is
asked of tensors by name without what says which part they are, in groups: what is the same in each layer. Nothing may be lost: neither
bytes nor what statistics compare.
"""
import re
from collections import Counter

import train_reshard

STILL = "dcp-still"
TOLERANCE = 1.02  # of other steps, or other numbers of parts. Afresh, exp_avg costs only 1.03 to 1.09 times as much, weights 2.4 to 4.9 times
ELEMENTS = 4096  # of a whole tensor: smaller ones are mostly overhead


def groups_of(shown):
    """({group: bytes stored}, {group: elements}, {name: elements}, elements that were compared); all of them are F32."""
    tensors = [(re.sub(r"\[[\d,]+\]$", "", tensor["name"]), tensor) for file in shown["files"] for tensor in file.get("tensors", ())]
    elements, stored, counts, compared = Counter(), Counter(), Counter(), 0
    for name, tensor in tensors:
        elements[name] += tensor["size"] // 4
        compared += tensor["size"] // 4 if "delta_rms" in tensor.get("stats", {}) else 0
    for name, tensor in tensors:
        if elements[name] >= ELEMENTS:
            group = re.sub(r"\.\d+\.", ".*.", name)
            stored[group] += tensor["stored"]
            counts[group] += tensor["size"] // 4
    return stored, counts, elements, compared


def check_change(tpded, run, number, has_still, say):
    """The change before stage `number`."""
    steps = (train_reshard.steps_of(number - 1)[-1], *train_reshard.steps_of(number)[:2])
    was, now = (f"{how} over {ranks}" for how, ranks in train_reshard.STAGES[run][number - 1:number + 1])
    change = f"{run}: from {was} to {now}"
    before, after, still = (groups_of(tpded.ask("show", f"{run}@{step}", "--tensors")) for step in steps)
    say(f"cut: {change}: bits an element at step {steps[0]}, before it; {steps[1]}, after it; {steps[2]}")
    if not before[0] or before[2] != after[2] or after[2] != still[2]:
        return [f"{change}: tensors are not the same: {sorted(set(before[2].items()) ^ set(after[2].items()))[:5]}"]
    failures = []
    unchanged, counted, _, _ = groups_of(tpded.ask("show", f"{STILL}@{steps[1]}", "--tensors") if has_still else {"files": ()})
    for group in sorted(before[0]):
        bits = [8 * stored[group] / counts[group] for stored, counts, _, _ in (before, after, still)]
        fair = max(min(bits[0], bits[2]), 8 * unchanged[group] / counted[group] if counted[group] else 0)
        wrong = bits[1] > TOLERANCE * fair
        say(f"cut:   {bits[0]:6.2f} {bits[1]:6.2f} {bits[2]:6.2f}  {bits[1] / fair:5.2f} x {fair:.2f}  {group}{'  FAILS' if wrong else ''}")
        if wrong:
            failures.append(f"{change}: {group} costs {bits[1]:.2f} bits an element, and {fair:.2f} where nothing changes")
    size = sum(after[2].values())
    say(f"cut:   {100 * after[3] / size:.1f} % of {size} elements compared")
    if after[3] != before[3] or after[3] < still[3]:
        failures.append(f"{change}: {after[3]} elements are compared, before it {before[3]}, then {still[3]}")
    return failures


def check(tpded, scenarios, say):
    runs = {scenario.run for scenario in scenarios}
    return [failure for run in train_reshard.STAGES if run != STILL and run in runs
            for number in range(1, len(train_reshard.STAGES[run])) for failure in check_change(tpded, run, number, STILL in runs, say)]
