"""Do tensors that are cut differently since the checkpoint before cost what they cost where nothing has moved?

Of the runs of train_reshard.py: the first checkpoint after each change of ranks, and the second, whose tensors are cut as those of the
first are. Nothing may be lost from one to the other: neither bytes nor what statistics compare.
"""
import train_reshard

TOLERANCE = 1.1  # the steps are not the same ones


def cost_of(shown):
    """Of the tensors, all F32: bytes stored, elements, elements that were compared with the checkpoint before."""
    tensors = [tensor for file in shown["files"] for tensor in file.get("tensors", ())]
    stored = sum(tensor["stored"] for tensor in tensors)
    elements = sum(tensor["size"] for tensor in tensors) // 4
    compared = sum(tensor["size"] for tensor in tensors if "delta_rms" in tensor.get("stats", {})) // 4
    return stored, elements, compared


def check(tpded, scenarios, say):
    failures = []
    for run in train_reshard.STAGES:
        if run not in {scenario.run for scenario in scenarios}:
            continue
        per_stage = train_reshard.SAVES * train_reshard.EVERY
        for number in range(1, len(train_reshard.STAGES[run])):
            moved, still = (cost_of(tpded.ask("show", f"{run}@{number * per_stage + (i + 1) * train_reshard.EVERY}", "--tensors"))
                            for i in range(2))
            before, after = (f"{how} over {ranks}" for how, ranks in train_reshard.STAGES[run][number - 1:number + 1])
            say(f"cut: {run}: from {before} to {after}: {8 * moved[0] / moved[1]:.2f} bits an element, where nothing moves "
                f"{8 * still[0] / still[1]:.2f}; {100 * moved[2] / moved[1]:.1f} % compared")
            if moved[0] / moved[1] > TOLERANCE * still[0] / still[1] or moved[2] < moved[1]:
                failures.append(f"{run}: after a change from {before} to {after} tensors cost {moved[0]} bytes, then {still[0]}; "
                                f"{moved[2]} of {moved[1]} elements were compared")
    return failures
