"""The state of training on several processes, see `processes.py`."""

processes = 1  # that train together, once they have met
rows = 0  # images of this process's share of the batch under way; 0 outside of a step, or alone
