"""What the bench claims, judged: each claim is a line that holds or does not, with its figure.

All of them are ratios of what was measured in the same run on the same bytes. A claim about pairs of checkpoints is judged for every
run by the median of that run's pairs, and the worst run counts. The best peer is the one with the fewest bytes, for each pair and each
role (the two moments apart) by itself, of all that were measured for it.

tpded's bytes are payloads and their part of the index. They are those of `effort = max`, as the peers' are those of their best levels;
what `balanced` gives, the default, stands beside it. "With the optimizer's state" is depend = optimizer, "without" is depend = weights.
"""
import statistics

import peers
import runs

EFFORT, DEFAULT_EFFORT = "max", "balanced"
WITH, WITHOUT = "optimizer", "weights"
MANIFEST_TENSOR = 512
COPY_SHARE, COPY_TENSOR = 0.001, 64
IDEAL = 1.02
IDEAL_SHARE = 0.01  # of a file's bytes, for an encoding to be judged
SAME = 0.002


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def of_kind(results, *kinds):
    return [run for run in results["runs"] if run["kind"] in kinds]


# --- ratios of bytes ---

def best_peer(record, role, alone=False):
    """The fewest bytes that a peer needs for a role of a checkpoint, and which one it is."""
    found = record["roles"][role]["peers"]
    return min((figures["bytes"], name) for name, figures in found.items()
               if name != "memcpy" and (not alone or name in peers.ALONE))


def adjacent(run, configuration):
    """(peers' record, tpded's record) of each checkpoint that tpded stored as a delta on the one before."""
    stored = {record["step"]: record for record in run["configurations"].get(configuration, [])}
    steps = [record["step"] for record in run["checkpoints"]]
    for before, record in zip(steps, run["checkpoints"][1:]):
        if stored and stored[record["step"]]["reference"] == before:
            yield record, stored[record["step"]]


def gains(run, configuration, roles):
    """Best peer's bytes over tpded's, for each pair."""
    found = []
    for record, stored in adjacent(run, configuration):
        ours = [role for role in roles if role in record["roles"] and role in stored["roles"]]
        if ours:
            found.append(sum(best_peer(record, role)[0] for role in ours) / max(sum(stored["roles"][role]["stored"] for role in ours), 1))
    return found


def claim(text, each, bound, at_most=False, digits=3, missing="not measured", note=None):
    """each: [(run's name, figure, more text)]; all figures at least (at most) the bound."""
    each = [(name, figure, more) for name, figure, more in each if figure is not None]
    result = {"claim": text, "bound": bound, "holds": None, "figure": missing, "each": []}
    if each:
        worst = (max if at_most else min)(figure for _, figure, _ in each)
        result["holds"] = worst <= bound if at_most else worst >= bound
        result["figure"] = f"{worst:.{digits}f}"
        result["each"] = [f"{name} {figure:.{digits}f}{more}" for name, figure, more in each]
    if note:
        result["each"].append(note)
    return result


def smaller(results, text, kind, roles, depend, bound):
    each = []
    for run in of_kind(results, kind):
        figure = median(gains(run, f"{EFFORT}/{depend}", roles))
        default = median(gains(run, f"{DEFAULT_EFFORT}/{depend}", roles))
        best = {peers.TEXT[best_peer(record, role)[1]] for record, _ in adjacent(run, f"{EFFORT}/{depend}")
                for role in roles if role in record["roles"]}
        each.append((run["name"], figure, f" ({DEFAULT_EFFORT} {default:.3f}; best peer {', '.join(sorted(best))})" if default else ""))
    return claim(text, each, bound)


def ratio_claims(results):
    weights = (runs.WEIGHTS,)
    yield smaller(results, "pre-training, weights: best peer / tpded at least 1.05", "pretrain", weights, WITH, 1.05)
    yield smaller(results, "fp32 fine-tune, weights, with the optimizer's state: at least 1.25", "finetune", weights, WITH, 1.25)
    yield smaller(results, "fp32 fine-tune, weights, without it: at least 1.1", "finetune", weights, WITHOUT, 1.1)
    yield smaller(results, "bf16 fine-tune, weights, with the optimizer's state: at least 2.2", "bf16", weights, WITH, 2.2)
    yield smaller(results, "bf16 fine-tune, weights, without it: at least 1.7", "bf16", weights, WITHOUT, 1.7)
    for kind in ("pretrain", "finetune", "bf16", "master", "lora"):
        yield smaller(results, f"moments, {kind}: best peer / tpded at least 1.07", kind, runs.MOMENTS, WITH, 1.07)


def base_claim(results, text, kind, bound):
    each = []
    for run in of_kind(results, kind):
        if run["base"]:
            peer, name = best_peer(run["checkpoints"][0], runs.WEIGHTS, alone=True)
            figures = {depend: peer / max(record["roles"][runs.WEIGHTS]["stored"], 1) for depend, record in run["base"].items()}
            each.append((run["name"], figures[WITHOUT], f" (best peer {peers.TEXT[name]})"))
    return claim(text, each, bound, missing="not measured: no `--base`, or no base model beside the run")


# --- sizes that are bounded ---

def _records(run):
    for configuration, records in run["configurations"].items():
        for record in records:
            yield configuration, record


def size_claims(results):
    each = []
    for run in of_kind(results, "master"):
        found = [role["payload"] / (role["raw"] * COPY_SHARE + role["tensors"] * COPY_TENSOR)
                 for _, record in _records(run) for role in [record["roles"].get(runs.COPY)] if role]
        each.append((run["name"], max(found, default=None), ""))
    yield claim("master: the bf16 copy's payload, of 0.1 % of its size and 64 bytes a tensor: at most 1", each, 1, at_most=True)
    each = [(run["name"], max(record["manifest"] / record["tensors"] for _, record in _records(run)), "") for run in results["runs"]]
    yield claim(f"manifest bytes a tensor: at most {MANIFEST_TENSOR}", each, MANIFEST_TENSOR, at_most=True, digits=0)
    each = [(run["name"], float(sum(len(record["too_large"]) for _, record in _records(run))),
             f" (largest stored / raw {max(record['worst'] for _, record in _records(run)):.3f})") for run in results["runs"]]
    yield claim("payloads larger than raw and 0.1 % and 64 bytes a tensor: none", each, 0, at_most=True, digits=0)


# --- the codec alone ---

def codecs(run, variant):
    return [record["codec"][variant] for record in run["checkpoints"] if variant in record["codec"]]


def by_encoding(results):
    """(encoding, what it codes, type of the run's weights): what codec_speed said of it, wherever it has a share of a file."""
    found = {}
    for run in results["runs"]:
        for record in run["checkpoints"]:
            for variant, coded in record["codec"].items():
                what = variant if variant in ("keyframe", "optimizer") else "weights"
                for name, e in coded["encodings"].items():
                    if e["share"] >= IDEAL_SHARE:
                        found.setdefault((name, what, record["roles"][runs.WEIGHTS]["dtype"]), []).append(e)
    return found


def ideal_claim(results):
    """Actual over ideal for each encoding of each kind of tensor, over all that codec_speed coded."""
    each, unknown = [], set()
    for (name, what, dtype), found in sorted(by_encoding(results).items()):
        if any(e["ideal"] is None for e in found):
            unknown.add(name)
        elif any(e["bytes_out"] for e in found):  # else all of it was the reference's
            each.append((f"{name} ({what}, {dtype})", sum(e["bytes_out"] for e in found) / sum(e["ideal"] for e in found), ""))
    return claim("bytes / entropy of the model, each encoding: at most 1.02", each, IDEAL, at_most=True, digits=4,
                 note=f"no ideal known: {', '.join(sorted(unknown))}" if unknown else None)


def against(results, variant, what, peer):
    """Median over pairs of the codec's speed over what was measured beside it, for the fp32 runs together."""
    found = [coded["cpu"][what] / coded["cpu"][peer] for run in of_kind(results, "pretrain", "finetune")
             for coded in codecs(run, variant)]
    return median(found)


def speed_claim(results, text, variant, what, bound, form):
    if form not in results["forms"]:
        return claim(text, [], bound, missing=f"not measured: this CPU has no {form}")
    peer = "zstd3_encode_MBps" if what.startswith("encode") else "zstd3_decode_MBps"
    wrong = [coded["form"] for run in of_kind(results, "pretrain", "finetune") for coded in codecs(run, variant)
             if coded["form"] != form]
    if wrong:
        return claim(text, [], bound, missing=f"not measured: it ran as {wrong[0]}")
    return claim(text, [("fp32 runs", against(results, variant, what, peer), "")], bound, digits=2)


def speed_claims(results):
    bare, decode = "encode_unchecked_MBps", "decode_MBps"
    yield speed_claim(results, "one thread, AVX-512, nothing predicted: encode at least 2.3 x zstd -3", "plain", bare, 2.3, "avx512")
    yield speed_claim(results, "the same: decode at least 3.1 x", "plain", decode, 3.1, "avx512")
    yield speed_claim(results, "with prediction: encode at least 1.0 x", "predicted", bare, 1.0, "avx512")
    yield speed_claim(results, "with prediction: decode at least 1.3 x", "predicted", decode, 1.3, "avx512")
    yield speed_claim(results, "AVX2, nothing predicted: encode at least 1.2 x", "plain, avx2", bare, 1.2, "avx2")
    yield speed_claim(results, "AVX2, nothing predicted: decode at least 1.9 x", "plain, avx2", decode, 1.9, "avx2")
    share, afar = against(results, "plain", "encode_read_MBps", "statistics_MBps"), against(results, "plain", bare, "statistics_from_memory_MBps")
    yield claim("time of statistics / time of encoding, nothing predicted, both of chunks just read, as the store has them: at most 0.5",
                [("fp32 runs", share, f" (each alone, from memory: {afar:.2f})" if afar else "")], 0.5, at_most=True, digits=2)
    for what in ("encode", "decode"):
        found = [c["wall_by_threads"][f"all_{what}_MBps"] / c["wall_by_threads"][f"one_{what}_MBps"]
                 for run in of_kind(results, "pretrain", "finetune") for c in codecs(run, "plain")
                 if c.get("wall_by_threads", {}).get("threads") == 2]
        yield claim(f"two threads / one, {what}: at least 1.85", [("fp32 runs", median(found), "")], 1.85, digits=2,
                    missing="not measured: not with two threads")


def keyframe_claims(results):
    sizes, encode, decode = [], [], []
    for run in of_kind(results, "pretrain", "finetune", "bf16"):
        record = run["checkpoints"][0]
        if "keyframe" not in record["codec"]:
            continue
        zipnn = record["roles"][runs.WEIGHTS]["peers"]["zipnn"]
        stored = run["configurations"][f"{DEFAULT_EFFORT}/none"][0]["roles"][runs.WEIGHTS]["stored"]
        cpu = record["codec"]["keyframe"]["cpu"]
        sizes.append((run["name"], zipnn["bytes"] / stored, ""))
        encode.append((run["name"], cpu["encode_unchecked_MBps"] / zipnn["encode_MBps"], ""))
        decode.append((run["name"], cpu["decode_MBps"] / zipnn["decode_MBps"], ""))
    yield claim("keyframe's weights: ZipNN's bytes / tpded's at least 1", sizes, 1)
    yield claim("keyframe's weights: encode at least as fast as ZipNN", encode, 1, digits=2)
    yield claim("keyframe's weights: decode at least as fast as ZipNN", decode, 1, digits=2)


def same_bytes_claim(results):
    """Does codec_speed code what an ingest stores?"""
    each = []
    for run in of_kind(results, "pretrain", "finetune", "bf16"):
        worst = 0.0
        for variant, configuration in (("plain", "none"), ("predicted", "optimizer")):
            for record, stored in adjacent(run, f"{DEFAULT_EFFORT}/{configuration}"):
                if variant in record["codec"]:
                    ours = record["codec"][variant]["bytes_out"]
                    worst = max(worst, abs(ours / max(stored["roles"][runs.WEIGHTS]["payload"], 1) - 1))
        each.append((run["name"], worst, ""))
    return claim("what is timed in memory is what is stored: sizes differ by at most 0.002", each, SAME, at_most=True, digits=5)


def of(results):
    return [*ratio_claims(results), *size_claims(results),
            base_claim(results, "fp32 fine-tune's first checkpoint on its base: best peer alone / tpded at least 1.5", "finetune", 1.5),
            base_claim(results, "bf16 fine-tune's first checkpoint on its base: at least 6", "bf16", 6),
            ideal_claim(results), *speed_claims(results), *keyframe_claims(results), same_bytes_claim(results)]


def hold(all_claims):
    measured = [c["holds"] for c in all_claims if c["holds"] is not None]
    return bool(measured) and all(measured)
