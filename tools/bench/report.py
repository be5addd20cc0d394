#!/usr/bin/env python3
"""The tables that follow from bench.py's results.

    report.py results.json       prints them again; status 1 when a claim does not hold

Contenders are rows, kinds of runs are columns; a figure is the median over adjacent pairs of checkpoints, of all runs of the kind.
A ratio is the tensors' bytes over what is stored for them: for tpded payloads and their part of the index, for a peer its output.
GB are 10^9 bytes.
"""
import json
import sys

import claims
import peers
import runs
import store
from claims import median

KINDS = ("pretrain", "finetune", "bf16", "master", "lora")
CONFIGURATIONS = (*(f"{effort}/{depend}" for effort in store.EFFORTS for depend in store.DEPENDS), store.ANCHORED)


def table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|" + "|".join("---:" if i else "---" for i in range(len(titles))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(value, digits=0):
    return "–" if value is None else f"{value:.{digits}f}"


def ratio(value):
    """Three digits that count."""
    return number(value, 3 if value is not None and value < 10 else 1)


def kinds_of(results):
    found = dict.fromkeys(run["kind"] for run in results["runs"])
    return [*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)]


def rows_by_contender(results, ours, theirs, show=ratio):
    """ours(run, configuration) and theirs(run, peer) give the figures of a run; a row each that has any."""
    kinds = kinds_of(results)
    contenders = [(f"tpded, {configuration.replace('/', ', depend ')}", ours, configuration) for configuration in CONFIGURATIONS]
    contenders += [(peers.TEXT[name], theirs, name) for name in peers.TEXT if name != "memcpy"]
    for title, figures, key in contenders:
        values = [median(v for run in claims.of_kind(results, kind) for v in figures(run, key)) for kind in kinds]
        if any(value is not None for value in values):
            yield [title, *map(show, values)]


# --- ratios ---

def ours_of(roles, keyframe=False):
    def figures(run, configuration):
        records = run["configurations"].get(configuration, [])
        records = records[:1] if keyframe else [stored for _, stored in claims.adjacent(run, configuration)]
        for record in records:
            found = [record["roles"][role] for role in roles if role in record["roles"]]
            if found:
                yield sum(role["raw"] for role in found) / max(sum(role["stored"] for role in found), 1)
    return figures


def theirs_of(roles, keyframe=False):
    def figures(run, name):
        for record in run["checkpoints"][:1] if keyframe else run["checkpoints"][1:]:
            found = [record["roles"][role] for role in roles if role in record["roles"]]
            if found and all(name in role["peers"] for role in found):
                yield sum(role["bytes"] for role in found) / sum(role["peers"][name]["bytes"] for role in found)
    return figures


def peer_checkpoint(record, name):
    """Bytes of a whole checkpoint by a peer: its roles, tensors in none as they are (there are none in these runs), and what is around
    tensors by zstd -3, after the checkpoint before where the peer has it. None: not all measured."""
    found = [role["peers"].get(name) for role in record["roles"].values()]
    if not found or not all(found):
        return None
    around = record["around"]["alone"] if name in peers.ALONE else record["around"]["patch"]
    return record["others"] + around + sum(role["bytes"] for role in found)


def peer_chain(run, name):
    """Bytes of each checkpoint of a run by a peer, the first one as a keyframe; None: not all measured."""
    found = [peer_checkpoint(run["checkpoints"][0], peers.KEYFRAME.get(name, name))]
    found += [peer_checkpoint(record, name) for record in run["checkpoints"][1:]]
    return None if None in found else found


def whole_ours(run, configuration):
    return [stored["bytes"] / stored["stored"] for _, stored in claims.adjacent(run, configuration)]


def whole_theirs(run, name):
    found = [(record["bytes"], peer_checkpoint(record, name)) for record in run["checkpoints"][1:]]
    return [size / stored for size, stored in found if stored]


def chain_ours(run, configuration):
    records = run["configurations"].get(configuration)
    return [sum(record["bytes"] for record in records) / sum(record["stored"] for record in records)] if records else []


def chain_theirs(run, name):
    chain = peer_chain(run, name)
    return [sum(record["bytes"] for record in run["checkpoints"]) / sum(chain)] if chain else []


def ratio_tables(results):
    kinds = kinds_of(results)
    for title, ours, theirs in (
            ("Weights", ours_of((runs.WEIGHTS,)), theirs_of((runs.WEIGHTS,))),
            ("Moments, both", ours_of(runs.MOMENTS), theirs_of(runs.MOMENTS)),
            ("exp_avg", ours_of((runs.EXP_AVG,)), theirs_of((runs.EXP_AVG,))),
            ("exp_avg_sq", ours_of((runs.EXP_AVG_SQ,)), theirs_of((runs.EXP_AVG_SQ,))),
            ("Keyframe: weights", ours_of((runs.WEIGHTS,), True), theirs_of((runs.WEIGHTS,), True)),
            ("Keyframe: moments", ours_of(runs.MOMENTS, True), theirs_of(runs.MOMENTS, True)),
            ("Whole checkpoints (deltas)", whole_ours, whole_theirs),
            ("Whole chains, keyframe and anchors included", chain_ours, chain_theirs)):
        yield f"### {title}: ratio\n"
        yield table(["contender", *kinds], rows_by_contender(results, ours, theirs))


# --- speeds ---

def gigabytes(value):
    return number(value and value / 1000, 4 if value and value < 100 else 2)


def both(figures, encode, decode):
    found = [median(f[key] for f in figures) for key in (encode, decode)]
    return f"{gigabytes(found[0])} / {gigabytes(found[1])}" if found[0] else "–"


def speed_table(results):
    """Weights, encode / decode, of one thread and of all; memory."""
    groups = [("fp32", ("pretrain", "finetune")), ("bf16", ("bf16",))]
    rows = []
    for variant, title in (("plain", "tpded, nothing predicted"), ("predicted", "tpded, predicted from moments"),
                           ("low rank", "tpded, the same and low rank"),
                           ("plain, avx2", "tpded, nothing predicted, AVX2"), ("predicted, avx2", "tpded, predicted, AVX2")):
        row = [title]
        for _, kinds in groups:
            found = [c for run in claims.of_kind(results, *kinds) for c in claims.codecs(run, variant)]
            threads = [c["wall_by_threads"] for c in found if "wall_by_threads" in c]
            row += [both([c["cpu"] for c in found], "encode_unchecked_MBps", "decode_MBps"),
                    both(threads, "all_encode_MBps", "all_decode_MBps")]
        rows.append([*row, "–"])
    for name, title in peers.TEXT.items():
        row, memory = [title], []
        for _, kinds in groups:
            places = [record["roles"][runs.WEIGHTS] for run in claims.of_kind(results, *kinds) for record in run["checkpoints"][1:]]
            found = [place["peers"][name] for place in places if name in place["peers"]]
            threads = [place["all_threads"][name] for place in places if name in place.get("all_threads", {})]
            memory += [f["memory"] for f in found]
            row += [both(found, "encode_MBps", "decode_MBps"), both(threads, "encode_MBps", "decode_MBps")]
        rows.append([*row, number(median(memory) / 1e6 if median(memory) is not None else None)])
    titles = [f"{group} {threads}" for group, _ in groups for threads in ("one thread", f"{results['threads']} threads")]
    return table(["encode / decode, GB/s", *titles, "memory, MB"], rows)


BESIDE = (("encode_unchecked_MBps", "encode"), ("encode_MBps", "encode, verified"), ("choose_and_encode_MBps", "and chosen"),
          ("decode_MBps", "decode"), ("statistics_MBps", "statistics"),
          ("encode_read_MBps", "encode, chunks just read"), ("statistics_from_memory_MBps", "statistics, from memory"), ("chunk_digests_MBps", "chunk digests"),
          ("sha256_MBps", "SHA-256"), ("zstd3_encode_MBps", "zstd -3"), ("zstd3_decode_MBps", "zstd -3, decode"), ("memcpy_MBps", "memcpy"))


def beside_table(results):
    rows = []
    for kind in kinds_of(results):
        for variant in ("keyframe", "plain", "predicted", "low rank", "plain, avx2", "predicted, avx2", "optimizer"):
            found = [c for run in claims.of_kind(results, kind) for c in claims.codecs(run, variant)]
            if found:
                rows.append([f"{kind}: {variant}", *(gigabytes(median(c["cpu"][key] for c in found)) for key, _ in BESIDE)])
    return table(["one thread, GB/s of CPU time", *(title for _, title in BESIDE)], rows)


def programs_table(results):
    rows = []
    for kind in kinds_of(results):
        for configuration in CONFIGURATIONS:
            records = [r for run in claims.of_kind(results, kind) for r in run["configurations"].get(configuration, [])]
            if not records:
                continue
            rows.append([f"{kind}: {configuration}", str(len(records)),
                         *(number(median(r["bytes"] / 1e9 / r[f"{what}_seconds"] for r in records), 2) for what in ("ingest", "restore")),
                         *(number(median(r[f"{what}_cpu"] / (r["bytes"] / 1e9) for r in records), 1) for what in ("ingest", "restore")),
                         *(number(max(r[f"{what}_memory"] for r in records) / 1e6) for what in ("ingest", "restore")),
                         number(median(r["manifest"] / r["tensors"] for r in records)), str(max(r["depth"] for r in records))])
    return table(["run: effort/depend", "checkpoints", "ingest GB/s", "restore GB/s", "ingest CPU s/GB", "restore CPU s/GB",
                  "ingest MB", "restore MB", "manifest B/tensor", "depth"], rows)


# --- encodings ---

def encodings_table(results):
    rows = []
    for (name, what, dtype), found in sorted(claims.by_encoding(results).items()):
        known = [e for e in found if e["ideal"]]
        actual, ideal = sum(e["bytes_out"] for e in known), sum(e["ideal"] for e in known)
        rows.append([name, f"{what}, {dtype}", str(len(found)),
                     ratio(median(e["bytes_in"] / max(e["bytes_out"], 1) for e in found)),
                     ratio(median(e["bytes_in"] / e["ideal"] for e in known)), number(actual / ideal if ideal else None, 4),
                     *(gigabytes(median(e["cpu"][key] for e in found)) for key in ("encode_unchecked_MBps", "decode_MBps"))])
    return table(["encoding", "of", "files", "ratio", "ideal", "bytes / ideal", "encode GB/s", "decode GB/s"], rows)


def base_table(results):
    rows = []
    for run in results["runs"]:
        if run["base"]:
            raw = run["checkpoints"][0]["roles"][runs.WEIGHTS]["bytes"]
            rows.append([run["name"], ratio(raw / claims.best_peer(run["checkpoints"][0], runs.WEIGHTS, alone=True)[0]),
                         *(ratio(raw / max(record["roles"][runs.WEIGHTS]["stored"], 1)) for record in run["base"].values())])
    return table(["run", "best peer alone", *(f"tpded, depend {depend}" for depend in store.DEPENDS)], rows) if rows else ""


def text(results):
    machine = results["machine"]
    words = {True: "holds", False: "**does not hold**", None: "not measured"}
    out = [f"## tpded and its peers on {machine['cpu']}\n",
           f"{machine['cpu']}, {machine['cpus']} CPUs, codec forms {', '.join(results['forms']) or 'scalar only'}, Linux "
           f"{machine['kernel']}, load {machine['load']:.1f} at the start. "
           + ", ".join(f"{name}: {version}" for name, version in machine["versions"].items())
           + f". Times are medians of {results['passes']} passes, those of {', '.join(peers.TEXT[n] for n in peers.SLOW)} of one; these "
           f"were measured for {results['slow']} of the checkpoints.\n",
           *ratio_tables(results)]
    base = base_table(results)
    if base:
        out += ["### A fine-tune's first checkpoint, with the model that it began from: ratio of weights\n", base]
    out += ["### Speed in memory, weights\n",
            "Of tpded the bare codec: neither trial on samples, nor verification, statistics, digests and I/O, which stand in the next "
            "table; statistics of chunks just read, as the store makes them, and alone, from memory, when they pay for two readings of their "
            "own. With one thread CPU time, with several wall time. Memory of a peer: what it took beyond its input, of programs all.\n",
            speed_table(results), "### Beside the codec\n", beside_table(results),
            "### Whole programs (wall time, with fsync and SHA-256)\n", programs_table(results),
            "### Each encoding, and its ideal: the entropy that its own model assigns\n", encodings_table(results),
            "### Claims (the worst run counts)\n",
            table(["claim", "", "figure", "each"],
                  [[c["claim"], words[c["holds"]], c["figure"], "; ".join(c["each"])] for c in results["claims"]])]
    return "\n".join(out)


def main():
    if len(sys.argv) != 2:
        print("usage: report.py results.json", file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    results["claims"] = claims.of(results)
    print(text(results))
    return 0 if claims.hold(results["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
