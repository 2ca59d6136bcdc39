"""When a day, a week, a month is over: at midnight UTC, on Monday, on the first."""

from datetime import UTC, datetime, timedelta

DAY_S = 86_400
SHORTEST_S = {"day": DAY_S, "week": 7 * DAY_S, "month": 28 * DAY_S}
"""No end of a period is further away than this, but for those of longer months."""


def end_of(period: str, now: float) -> float:
    """Unix seconds of the end of the `day`, `week` or `month` that `now` (Unix seconds) lies in."""
    if period == "day":
        return (now // DAY_S + 1) * DAY_S
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return (today + timedelta(days=7 - today.weekday())).timestamp()
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()
