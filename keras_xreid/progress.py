"""Progress of long work: a bar on a terminal, one line at the end elsewhere."""

import sys
import time


class Progress:
    """Shows how far some work is.

    On a terminal or in a notebook it is Keras's bar under a title. A log file gets one line when
    the work is done, for a bar would fill it with thousands of frames.

    Args:
        title: what is done, such as "Writing 200 images into mlr".
        total: int, how many steps there are.
        unit: what one step handles.
        show: bool, False for silence.
        after: seconds that pass before anything is shown; work that ends sooner is silent.

    Example:

    >>> progress = Progress("Embedding 200 images", 200)
    >>> for part in parts:
    ...     embed(part)
    ...     progress.add(len(part))
    """

    def __init__(self, title, total, unit="image", show=True, after=0.0):
        self.title, self.total, self.show, self.after = title, total, show, after
        self.done, self._titled, self._bar = 0, False, None
        self._begin = time.monotonic()
        # Keras's own test for a terminal says yes to a pipe.
        if show and (sys.stdout.isatty() or "ipykernel" in sys.modules):
            import keras  # not before: who draws or shrinks images in a script does without it

            self._bar = keras.utils.Progbar(total, unit_name=unit)
            if not after:
                self._show_title()

    def add(self, count=1):
        """Notes that `count` more steps are done."""
        self.done += count
        seconds = time.monotonic() - self._begin
        if not self.show or seconds < self.after:
            return
        if self._bar is not None:
            self._show_title()
            self._bar.update(self.done)
        elif self.done >= self.total:
            print(f"{self.title}: {seconds:.0f} s", flush=True)

    def _show_title(self):
        if not self._titled:
            print(self.title, flush=True)
        self._titled = True
