"""What the catalogue's prices say of one deployment. An unknown price stays unknown: nothing is guessed here."""

from collections.abc import Iterable

from torana.catalog.model_records import DeploymentRecord, ModelRecord, PriceRecord
from torana.usage.prices import Price


class PriceList:
    """Prices by provider and the provider's own name of the model, for deployments whose record names none.

    So the pass-through, and a default that resolves to a model of the catalogue, cost what that model costs.
    """

    def __init__(self, records: Iterable[ModelRecord]) -> None:
        self._known: dict[tuple[str, str], Price] = {}
        for record in records:
            for item in record.deployments:
                price = price_of(item.prices or record.prices)
                if price is not None:
                    self._known.setdefault((item.provider, item.model), price)

    def find(self, item: DeploymentRecord, upstream_model: str, of_model: PriceRecord | None) -> Price | None:
        """The deployment's own prices, else its model's, else those of the same model elsewhere in the catalogue."""
        return price_of(item.prices or of_model) or self._known.get((item.provider, upstream_model))


def price_of(record: PriceRecord | None) -> Price | None:
    if record is None:
        return None
    return Price.of(
        record.as_of,
        input=record.input,
        output=record.output,
        cache_read=record.cache_read,
        cache_write=record.cache_write,
    )
