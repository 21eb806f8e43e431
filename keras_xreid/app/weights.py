"""Lists the published weights: what each was trained on, its scores and its size.

    xreid weights
    xreid weights intact_strong_market1501_501

Every command takes such a name as --weights, and `xr.load` too.
"""

import dataclasses
import json

import tyro

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.report.tables import NOT_MEASURED, text_table


@dataclasses.dataclass
class Options:
    name: tyro.conf.Positional[str | None] = None
    """Show all that is known of these weights."""


def main(options):
    known = xr.published()
    if options.name is None:
        rows = []
        for name, entry in known.items():
            rank1 = [entry["per_rate"].get(rate, {}).get("rank1") for rate in ("1", "4")]
            cells = [NOT_MEASURED if score is None else f"{score:.1f}" for score in rank1]
            size = f"{entry['bytes'] / 1e6:.1f} MB" if entry["file"] else "no file"
            like = f" (scores of {entry['scores_of']})" if entry.get("scores_of") else ""
            rows.append([name + like, entry["dataset"], *cells, size])
        print(text_table(["name", "trained on", "r = 1", "r = 4", "size"], rows))
        print('\nRank-1 in percent. xr.load("NAME") loads one; xreid weights NAME tells all.')
    elif options.name in known:
        print(json.dumps(known[options.name], indent=1))
    else:
        raise xr.InputError(f"no published weights {options.name}: known are {', '.join(known)}")


def cli():
    app.command(main, Options, __doc__)
