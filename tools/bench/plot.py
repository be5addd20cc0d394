"""The picture: bytes per checkpoint along each run, a panel a run, as an SVG of its own (no library).

The scale is linear and begins at 0; the keyframe, which is the first checkpoint, is in it.
"""
from xml.sax.saxutils import escape

import report

WIDTH, HEIGHT, COLUMNS = 400, 250, 3
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 30
KEY_HEIGHT = 44
# Contender and colour: those that can be told apart, and are close to the best.
PEERS = (("zstd-3", "#999999"), ("zipnn-xor", "#e69f00"), ("openzl-difference", "#009e73"), ("pcodec-difference-12", "#cc79a7"))
OURS = (("max/none", "#56b4e9"), ("max/weights", "#0072b2"), ("max/optimizer", "#d55e00"))


def series(run):
    """(title, colour, [(step, bytes)]) of those that have all checkpoints."""
    steps = [record["step"] for record in run["checkpoints"]]
    yield "uncompressed", "#000000", list(zip(steps, (record["bytes"] for record in run["checkpoints"])))
    for name, colour in PEERS:
        chain = report.peer_chain(run, name)
        if chain:
            yield report.peers.TEXT[name], colour, list(zip(steps, chain))
    for configuration, colour in OURS:
        records = run["configurations"][configuration]
        yield f"tpded, {configuration.replace('/', ', depend ')}", colour, [(r["step"], r["stored"]) for r in records]


def round_up(value):
    """To a number whose quarters are short."""
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(power * m for m in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if value <= power * m)


def text(x, y, words, anchor="middle", size=11):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def panel(run, left, top):
    lines = list(series(run))
    steps = [step for step, _ in lines[0][2]]
    largest = round_up(max(size for _, _, points in lines for _, size in points))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(step, size):
        return (left + LEFT + wide * (step - steps[0]) / max(steps[-1] - steps[0], 1), top + TOP + high * (1 - size / largest))

    out = [text(left + LEFT + wide / 2, top + 16, f"{run['name']}: MB per checkpoint", size=12)]
    for mark in range(5):
        size = largest * mark / 4
        x, y = place(steps[0], size)
        out.append(f'<path d="M{x:.1f} {y:.1f}h{wide}" stroke="#dddddd"/>')
        out.append(text(x - 6, y + 4, f"{size / 1e6:.3g}", "end"))
    out += [text(place(step, 0)[0], top + HEIGHT - 12, str(step)) for step in steps]
    for _, colour, points in lines:
        places = [place(*point) for point in points]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="'
                   + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in places]
    return out


def key(titles, width):
    out = []
    for i, (title, colour) in enumerate(titles.items()):
        x, y = 16 + (i % 4) * width / 4, 16 + i // 4 * 18
        out.append(f'<path d="M{x:.1f} {y}h22" stroke="{colour}" stroke-width="3"/>')
        out.append(text(x + 28, y + 4, title, "start"))
    return out


def picture(results):
    found = results["runs"]
    columns = min(COLUMNS, len(found))
    width, height = columns * WIDTH, -(-len(found) // columns) * HEIGHT + KEY_HEIGHT
    titles = {title: colour for run in found for title, colour, _ in series(run)}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif">', f'<rect width="{width}" height="{height}" fill="white"/>', *key(titles, width)]
    for i, run in enumerate(found):
        out += panel(run, i % columns * WIDTH, KEY_HEIGHT + i // columns * HEIGHT)
    return "\n".join([*out, "</svg>"]) + "\n"
