"""The tables of the papers: another name of recipes/tables.py."""

import common
import tables

if __name__ == "__main__":
    common.start(tables.main, tables.TableOptions, tables.__doc__)
