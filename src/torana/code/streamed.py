"""A generation while it comes: it begins behind its opening tag, ends at its stop text, and loses its fence lines."""

from collections.abc import Sequence

from torana.code.fences import FenceStripper
from torana.code.stops import StartCutter, StopCutter


class StreamedGeneration:
    """Takes pieces of an answer and gives what is certain of it.

    stops        where the answer ends
    language     that of the file
    is_as_given  nothing but the end is looked for
    """

    def __init__(self, stops: Sequence[str], language: str, *, is_as_given: bool) -> None:
        self._cutters: tuple[StopCutter | StartCutter | FenceStripper, ...] = (StopCutter(stops),)
        if not is_as_given:
            self._cutters += (StartCutter(stops), FenceStripper(language))

    def feed(self, text: str, *, is_last: bool) -> str:
        for cutter in self._cutters:
            text = cutter.feed(text)
            if is_last:
                text += cutter.close()
        return text
