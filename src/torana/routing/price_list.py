"""What the catalogue's prices say of one deployment. An unknown price stays unknown: nothing is guessed here."""

from collections.abc import Iterable

from torana.catalog.model_records import DeploymentRecord, ModelRecord, PriceFigures, PriceRecord, PriceTerms
from torana.clock import Clock
from torana.routing.stages import NEVER, start_of
from torana.usage.prices import PARTS, Price


class PriceList:
    """Prices by provider and the provider's own name of the model, for deployments whose record names none.

    So the pass-through, and a default that resolves to a model of the catalogue, cost what that model costs.
    """

    def __init__(self, records: Iterable[ModelRecord], clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], PriceRecord] = {}
        self._changes: set[float] = set()
        for record in records:
            for item in record.deployments:
                prices = item.prices or record.prices
                if prices is not None:
                    self._known.setdefault((item.provider, item.model), prices)
                    self._changes.update(start_of(each.since) for each in prices.later)

    def find(self, item: DeploymentRecord, upstream_model: str, of_model: PriceRecord | None) -> Price | None:
        """The deployment's own prices, else its model's, else those of the same model elsewhere in the catalogue."""
        record = item.prices or of_model or self._known.get((item.provider, upstream_model))
        return price_of(record, self._clock.now())

    def next_change(self, now: float) -> float:
        """When the next price changes, in Unix seconds; until then every answer stays as it is."""
        return min((change for change in self._changes if change > now), default=NEVER)


def price_of(record: PriceRecord | None, now: float) -> Price | None:
    """
    now  Unix seconds
    """
    if record is None:
        return None
    told: PriceTerms = record
    as_of = record.as_of
    for later in record.later:
        if start_of(later.since) <= now:
            told, as_of = later, later.since
    long = None if told.long is None else (told.long.over, _figures(told.long))
    return Price.of(as_of, long=long, times=told.times, **_figures(told))


def _figures(told: PriceFigures) -> dict[str, str]:
    return {name: getattr(told, name) for name in PARTS}
