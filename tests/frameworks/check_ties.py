"""Is the optimizer's state tied to the weights that it is the state of (`tpdectl show --tensors`)?

Asked of the newest checkpoint of each run here, which has an earlier one to be compared with. Who is right is known from the program
that trained: where its optimizer has numbers, the order in which it was given the parameters; else the parameters' names. DeepSpeed's
flat partitions must be tied to their master, and the masters to all of the model.
"""
import re
import tempfile

import small

CONFIRMED = 0.9  # of the elements: what only order says are norms and the like, too small for a verdict
STATE = re.compile(r"^(?P<of>.*?)\.?(?P<kind>exp_avg|exp_avg_sq)(\.(?P<behind>.*?))?(?P<chunk>\[[\d,]+\])?$")


def trainer_order(run):
    """The Trainer's groups: weights with decay, then those without."""
    import train_hf
    with tempfile.TemporaryDirectory() as output:
        trainer = train_hf.make_trainer(run, output, 1)
        optimizer = trainer.create_optimizer()
        names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
        return [names[id(parameter)].replace(".default.", ".") for group in optimizer.param_groups for parameter in group["params"]]


def small_order(_):
    return [f"model.{name}" for name, _ in small.fresh_model().named_parameters()]


NUMBERED = {"hf-fp32": trainer_order, "hf-bf16": trainer_order, "hf-sharded": trainer_order, "hf-lora": trainer_order,
            "hf-limit1": trainer_order, "lightning": small_order}
NAMED = {"dcp-sync", "dcp-async", "torchtitan", "lightning-sharded", "megatron-core"}
FLAT = {"deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3"}


def tensors_of(shown):
    return [{**tensor, "path": file["path"]} for file in shown["files"] for tensor in file.get("tensors", ())]


def is_right(run, order, tensor, tie):
    match = STATE.match(tensor["name"])
    if run in NUMBERED:
        return tie["name"].endswith(order[int(match["of"].rsplit(".", 1)[1])])
    if run in FLAT:
        return tie["path"] == tensor["path"] and re.search(r"fp32.*groups\.0$", tie["name"]) is not None
    parameter = match["behind"] or match["of"].split("state.", 1)[-1]
    return tie["name"].endswith(parameter + (match["chunk"] or ""))


def check_masters(run, tensors):
    """All elements of the model in ZeRO-1 and 2, where it takes nothing beside them; ZeRO-3 keeps them nowhere else."""
    weights = [tensor for tensor in tensors if tensor["dtype"] == "BF16"]
    model, stored = sum(tensor["size"] // 2 for tensor in weights), sum(tensor["stored"] for tensor in weights)
    tied = sum(tie["elements"] for tensor in tensors for tie in tensor.get("ties", ()) if tie["kind"] == "master")
    failures = [] if tied == model and (model > 0) == (run != "deepspeed-zero3") else [f"{run}: masters of {tied} elements, of {model}"]
    return failures + ([] if stored <= 0.001 * 2 * model + 64 * len(weights) else [f"{run}: {model} weights beside masters take {stored}"])


def check_one(run, shown, say):
    tensors = tensors_of(shown)
    order = NUMBERED[run](run) if run in NUMBERED else None
    states = [tensor for tensor in tensors if STATE.match(tensor["name"])]
    untied = [tensor["name"] for tensor in states if len(tensor.get("ties", ())) != 1]
    wrong = [f"{tensor['name']} to {tie['name']}" for tensor in states for tie in tensor.get("ties", ())
             if not is_right(run, order, tensor, tie)]
    elements = [(tie["elements"], tie["checked"]) for tensor in states for tie in tensor.get("ties", ())]
    confirmed = sum(n for n, checked in elements if checked) / max(1, sum(n for n, _ in elements))
    failures = [f"{run}: {word}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
                for word, names in (("tied to nothing", untied), ("tied wrongly", wrong)) if names]
    if not states or confirmed < CONFIRMED:
        failures.append(f"{run}: {len(states)} states, {100 * confirmed:.1f} % of their elements confirmed by the values")
    say(f"ties: {shown['name']}: {len(states) - len(wrong) - len(untied)} of {len(states)} states right, "
        f"{100 * confirmed:.1f} % of their elements confirmed by the values")
    return failures + (check_masters(run, tensors) if run in FLAT else [])


def check(tpded, scenarios, say):
    failures = []
    newest = {item["run"].split("/")[0]: item["name"] for item in tpded.listed()}  # torchtitan's lie one directory deeper
    for run in (scenario.run for scenario in scenarios):
        if run in newest and (run in NUMBERED or run in NAMED or run in FLAT):
            failures += check_one(run, tpded.ask("show", newest[run], "--tensors"), say)
    return failures
