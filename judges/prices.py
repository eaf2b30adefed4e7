"""What endpoints ask for: a table of prices, which is data with a date."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic.dataclasses import dataclass

from judges.budget import Price
from judges.criteria import STRICT
from judges.toml_data import read_toml, validated

SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")  # gpt-4.1-mini-2025-04-14 costs what gpt-4.1-mini does


@dataclass(frozen=True, config=STRICT)
class PriceTable:
    """Prices by host and model, and the date on which they were looked up."""

    date: datetime.date
    hosts: dict[str, dict[str, Price]]

    def price(self, base_url: str, model: str) -> Price | None:
        """The price of a model at an address, None if it is not in the table."""
        models = self.hosts.get(urlsplit(base_url).hostname or "", {})
        return models.get(model) or models.get(SNAPSHOT.sub("", model))


def load_prices(path: Path) -> PriceTable:
    """Load the table. Raises UserError, one line with file, key and cure."""
    return validated(PriceTable, read_toml(path), path)
