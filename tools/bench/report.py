#!/usr/bin/env python3
"""The tables and the claims that follow from bench.py's results.

    report.py results.json       prints them again; status 1 when a claim does not hold

A ratio is the file's size over what is stored for it: for tpded the bytes on disk of the file's parts, index and all,
as the real program wrote them (the manifest, one a checkpoint, stands in the table of whole programs). Medians are over
adjacent pairs of checkpoints. A claim is judged for every run by that run's own median, and the worst one counts.
"""
import json
import statistics
import sys

FP32, BF16 = "float32", "bfloat16"
METHODS = ("tpded", "zstd", "zipnn", "zipnn_xor")
WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.pt"


def select(results, file, kind=None, dtype=None, keyframe=False):
    """[(run name, [records])]: what there is of a file, run by run."""
    found = []
    for run in results["runs"]:
        records = [r for r in run["files"] if r["file"] == file and (dtype is None or r["dtype"] == dtype)
                   and (r["reference"] is None) == keyframe]
        if records and kind in (None, run["kind"]):
            found.append((run["name"], records))
    return found


def ratio(record, method):
    if method == "tpded":
        return record["bytes"] / record["stored"]
    return record[method]["ratio"] if record[method] else None


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def over(groups, figure):
    """Median of a figure over all records of all runs."""
    return median(figure(record) for _, records in groups for record in records)


# --- claims ---

def claim(text, groups, bound):
    """At least `bound` in every run; a bound of None: more than ZipNN on XOR."""
    result = {"claim": text, "holds": None, "figure": "not measured", "runs": {}}
    for name, records in groups:
        ours = median(ratio(r, "tpded") for r in records)
        other = bound if bound is not None else median(ratio(r, "zipnn_xor") for r in records)
        result["runs"][name] = {"ratio": ours, "bound": other}
    if result["runs"]:
        worst = min(result["runs"].values(), key=lambda run: run["ratio"] / run["bound"])
        result["holds"] = all(run["ratio"] > run["bound"] if bound is None else run["ratio"] >= bound
                              for run in result["runs"].values())
        result["figure"] = f"{worst['ratio']:.3f}" + (f" against {worst['bound']:.3f}" if bound is None else "")
    return result


def claims(results):
    finetune = select(results, WEIGHTS, "finetune", FP32)
    return [
        claim("fine-tune weights, fp32: at least 1.7", finetune, 1.7),
        claim("fine-tune weights, fp32: smaller than ZipNN on XOR", finetune, None),
        claim("weights, bf16: at least 11", select(results, WEIGHTS, "bf16", BF16), 11),
        *(claim(f"optimizer.pt, {kind}: at least 1.2", select(results, OPTIMIZER, kind), 1.2)
          for kind in ("pretrain", "finetune", "bf16")),
        claim("keyframe's weights, fp32: at least 1.18", select(results, WEIGHTS, None, FP32, True), 1.18),
        claim("keyframe's weights, bf16: at least 1.48", select(results, WEIGHTS, None, BF16, True), 1.48),
    ]


def hold(all_claims):
    measured = [c["holds"] for c in all_claims if c["holds"] is not None]
    return bool(measured) and all(measured)


# --- tables ---

def table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|" + "|".join("---:" if i else "---" for i in range(len(titles))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(value, digits=0):
    return "–" if value is None else f"{value:.{digits}f}"


def speeds_of(peer):
    return peer and (peer["encode_MBps"], peer["decode_MBps"])


def codec_speed(record, what):
    return record["codec"]["cpu"][f"{what}_MBps"]


def both(groups, get):
    """'encode / decode' of a method, medians."""
    speeds = [over(groups, lambda r, i=i: (get(r) or (None, None))[i]) for i in (0, 1)]
    return f"{number(speeds[0])} / {number(speeds[1])}" if speeds[0] else "–"


def rows_of(results):
    """(title, [(run, records)]) for each kind of run, file and whether it is a keyframe."""
    for kind in dict.fromkeys(run["kind"] for run in results["runs"]):
        for file in (WEIGHTS, OPTIMIZER):
            for keyframe in (False, True):
                groups = select(results, file, kind, keyframe=keyframe)
                if groups:
                    dtype = groups[0][1][0]["dtype"]
                    title = f"{kind}, {dtype}: {file}" + (", keyframe" if keyframe else "")
                    yield title, groups


def encodings(groups):
    """The share of the bytes that each encoding has."""
    total, shares = 0, {}
    for _, records in groups:
        for record in records:
            total += record["bytes"]
            for name, encoding in record["codec"]["encodings"].items():
                shares[name] = shares.get(name, 0) + encoding["bytes_in"]
    shown = sorted(((size / total, name) for name, size in shares.items() if size), reverse=True)
    return ", ".join(f"{name} {100 * share:.1f} %" for share, name in shown)


def per_encoding(results):
    """Speeds of each encoding by itself, over all files in which it has at least 1 % of the bytes."""
    speeds = {}
    for run in results["runs"]:
        for record in run["files"]:
            for name, e in record["codec"]["encodings"].items():
                if e["share"] >= 0.01:
                    key = f"{name}, {record['dtype']}"
                    speeds.setdefault(key, []).append((e["bytes_in"] / max(e["bytes_out"], 1), e["cpu"]))
    for key, found in sorted(speeds.items()):
        figures = [median(cpu[f"{what}_MBps"] for _, cpu in found) for what in ("encode", "encode_unchecked", "decode")]
        yield [key, str(len(found)), number(median(r for r, _ in found), 3), *map(number, figures)]


def whole(results):
    for kind in dict.fromkeys(run["kind"] for run in results["runs"]):
        records = [c for run in results["runs"] if run["kind"] == kind for c in run["checkpoints"]]
        rates = [median(c["bytes"] / 1e6 / c[f"{what}_seconds"] for c in records) for what in ("ingest", "restore")]
        deltas = [c for c in records if c["depth"] > 0]
        size = sum(c["bytes"] for c in records)
        yield [kind, str(len(records)), number(median(c["bytes"] / c["stored"] for c in deltas), 3),
               number(size / sum(c["stored"] for c in records), 3),
               number(median(c["manifest"] / 1e3 for c in records), 1), *map(number, rates),
               str(max(c["depth"] for c in records))]


def text(results):
    rows = list(rows_of(results))
    machine = results["machine"]
    out = ["### Ratio (size of the file / bytes stored for it; medians)\n"]
    out.append(table(
        ["run, type: file", "files", "tpded", "zstd -3", "ZipNN", "ZipNN on XOR", "encodings of tpded"],
        [[title, str(sum(len(records) for _, records in groups)),
          *(number(over(groups, lambda r, m=method: ratio(r, m)), 3) for method in METHODS),
          encodings(groups)] for title, groups in rows]))
    out.append("### Speed in memory, one thread (MB/s of CPU time, encode / decode; medians)\n")
    out.append("tpded's first column is all that it does to a file: trying encodings on samples, encoding, decoding "
               "again and comparing. The second leaves out the samples, the third is the bare encoding.\n")
    out.append(table(
        ["run, type: file", "tpded, all", "chunks", "bare", "zstd -3", "ZipNN", "ZipNN on XOR"],
        [[title, both(groups, lambda r: (codec_speed(r, "choose_and_encode"), codec_speed(r, "decode"))),
          number(over(groups, lambda r: codec_speed(r, "encode"))),
          number(over(groups, lambda r: codec_speed(r, "encode_unchecked"))),
          *(both(groups, lambda r, m=method: speeds_of(r[m])) for method in METHODS[1:])]
         for title, groups in rows]))
    out.append("### Each encoding by itself (MB/s of CPU time)\n")
    out.append(table(["encoding, type of the file", "files", "ratio", "encode", "bare", "decode"],
                     per_encoding(results)))
    out.append(f"### Whole programs, {results['threads']} threads (wall time, with fsync and SHA-256)\n")
    out.append(table(
        ["run", "checkpoints", "ratio of deltas", "ratio of the run", "manifest kB", "ingest MB/s", "restore MB/s",
         "depth"], whole(results)))
    out.append(f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, load {machine['load']:.1f} at "
               "the start. " + ", ".join(f"{name}: {version}" for name, version in machine["versions"].items())
               + f". Times are medians of {results['passes']} passes.\n")
    out.append("### Claims (the worst run's median)\n")
    words = {True: "yes", False: "**no**", None: "not measured"}
    out.append(table(
        ["claim", "holds", "figure", "each run"],
        [[c["claim"], words[c["holds"]], c["figure"],
          ", ".join(f"{name} {run['ratio']:.3f}" for name, run in c["runs"].items())] for c in results["claims"]]))
    return "\n".join(out)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as results_file:
        stored = json.load(results_file)
    stored["claims"] = claims(stored)
    print(text(stored))
    sys.exit(0 if hold(stored["claims"]) else 1)
