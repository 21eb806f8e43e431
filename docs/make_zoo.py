"""Writes zoo.md, the page of published weights, from weights/index.json.

    python docs/make_zoo.py

Only weights with a file or an address are listed.
"""

import json
from pathlib import Path

DOCS = Path(__file__).parent
INDEX = DOCS.parent / "weights" / "index.json"
HEAD = """# Zoo

<!-- Written by docs/make_zoo.py. Do not edit. -->

`xr.load("NAME")` returns the model and checks its file against the SHA-256 of the index.
`xr.load()` returns the best one. `xreid weights` lists the names.
`xr.load` also takes a file, a run folder, or `"hf://user/name"`.

```python
import keras_xreid as xr

model = xr.load("intact_strong_market1501_501")
print(type(model).__name__, model.image_size)
```

## Scores

Rank-1 in percent of the test people, protocol each-rate, ± one standard error.
*Mean LR* is the mean over r = 2, 3, 4.
The weights were scored as they are stored, in float16, without mirror images.
Loaded strong weights average mirror images, at twice the cost:
[a little better](results.md#every-system-the-strong-preset).
`embed(..., flip=False)` leaves them out.
"""
SPEED = """
Images a second were measured while embedding, all weights in turn, on two CPU cores, on PyTorch.
Mirror images were averaged where loaded weights do so. The card of each file names the machine.
`python tests/benchmarks/costs.py embed` measures so; with `--write` it puts its numbers here.
"""
TAIL = """
## Files and commands

The files lie in `weights/`, each with a card, `weights/NAME.md`.
They hold nothing that only training needs: discriminators, INTACT's association,
Distilled's teacher.
All but the two `synthetic` ones are for research only, as Market-1501 is.
Do not use them in a product.
Weights that you train on your own images are yours.
If they start from the research-only weights here, the same limit may apply.
ImageNet, where `--weights imagenet` starts, has terms of its own.
Training times are upper limits: other jobs shared the machine.
`recipes/intact.py` alone takes six to ten minutes.
`_market1501_501` is the split of 401 and 100 people in [data sets](data.md#notes).

{commands}

None of them has seen Market-1501's official test people.
With the official folder as DIR, the next line scores any of them on those.
Score one of them again: `xreid evaluate --weights NAME --data market1501 --data-dir DIR`.
Score all again: `xreid tables published --data market1501 --data-dir DIR`.
It says how far each is from its card.
"""


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(index):
    """The page, from the index of published weights."""
    rates = ("1", "2", "3", "4", "8")
    scores, commands = [], []
    for name, entry in index.items():
        if not (entry.get("file") or entry.get("url")):
            continue
        rank1 = [f"{entry['per_rate'][rate]['rank1']:.1f}" for rate in rates]
        rank1[0] += f" ± {entry['standard_error']['1']:.1f}"
        mean, parameters = entry["mean_lr"]["rank1"], entry["to_embed"]["parameters"]
        speed, manifest = entry["embedded_per_second"], entry["manifest_sha256"][:16]
        row = [f"{mean:.1f}", f"{parameters / 1e6:.1f} M", f"{speed:.0f}", f"`{manifest}`"]
        like = f", scores of `{entry['scores_of']}`" if entry.get("scores_of") else ""
        scores.append([f"`{name}`{like}", entry["dataset"], *rank1, *row])
        size, minutes = f"{entry['bytes'] / 1e6:.1f} MB", f"{entry['seconds'] / 60:.0f} min"
        commands.append([f"`{name}`", size, f"`{entry['command']}`", minutes])
    header = ["name", "data", *(f"r = {rate}" for rate in rates), "mean LR", "parameters"]
    return (
        f"{HEAD}\n{table([*header, 'images/s', 'manifest'], scores)}\n"
        + SPEED
        + TAIL.format(commands=table(["name", "file", "command", "training"], commands))
    )


if __name__ == "__main__":
    text = page(json.loads(INDEX.read_text(encoding="utf-8")))
    (DOCS / "zoo.md").write_text(text, encoding="utf-8")
