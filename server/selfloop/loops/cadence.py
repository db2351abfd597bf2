"""When a loop is due: `every 10m`, `daily 09:00`, `weekly mon 09:00`, `cron 0 9 * * 1-5`, `on change src/**`, `manual`.

Invariant: pure functions; the clock and the zone are arguments. Intervals are counted in real time, calendar times by
the clock on the wall: across daylight saving a daily loop keeps its hour, is not left out when its hour does not exist
(it runs right after the gap) and does not run twice when its hour comes twice. That is cronsim's doing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal

from attrs import frozen

from selfloop.errors import InvalidInput

CadenceKind = Literal["every", "calendar", "change", "manual"]

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LONGEST_DAYS = 366
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_FORMS = "every 10m (s, m, h or d), daily 09:00, weekly mon 09:00, cron 0 9 * * 1-5, on change src/**/*.py, or manual"


@frozen
class Cadence:
    """A cadence that was understood."""

    text: str
    """As it is written back: lower case but for a glob, single blanks, days by three letters."""
    kind: CadenceKind
    seconds: int = 0
    """Of `every`."""
    cron: str = ""
    """Of a calendar: five fields."""
    glob: str = ""
    """Of `on change`."""


@lru_cache(maxsize=4096)
def parse(text: str) -> Cadence:
    """Read a cadence.

    Raises:
        InvalidInput: it means nothing, or never or always; the message is a phrase without an end.
    """
    words = text.split()
    first, rest = (words[0].casefold(), words[1:]) if words else ("", [])
    if first == "manual" and not rest:
        return Cadence("manual", "manual")
    if first == "every" and len(rest) == 1:
        return _every(text, rest[0])
    if first == "daily" and len(rest) == 1:
        hour, minute = _time(text, rest[0])
        return Cadence(f"daily {hour:02}:{minute:02}", "calendar", cron=f"{minute} {hour} * * *")
    if first == "weekly" and len(rest) == 2:
        day = _day(text, rest[0])
        hour, minute = _time(text, rest[1])
        return Cadence(f"weekly {_DAYS[day][:3]} {hour:02}:{minute:02}", "calendar", cron=f"{minute} {hour} * * {day}")
    if first == "on" and len(rest) >= 2 and rest[0].casefold() == "change":
        glob = text.split(None, 2)[2].strip()
        _check_glob(text, glob)
        return Cadence(f"on change {glob}", "change", glob=glob)
    fields = rest if first == "cron" else words
    if first == "cron" or (len(fields) == 5 and all(re.fullmatch(r"[\d*,/A-Za-z#-]+", part) for part in fields)):
        return _cron(text, fields)
    raise InvalidInput(f"the cadence {text[:80]!r} cannot be read; write {_FORMS}")


def _every(text: str, amount: str) -> Cadence:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", amount.casefold())
    if match is None:
        raise InvalidInput(
            f"the cadence {text[:80]!r} cannot be read; write a whole number and s, m, h or d: every 10m"
        )
    number, unit = int(match[1]), match[2]
    seconds = number * _UNIT_SECONDS[unit]
    if seconds == 0:
        raise InvalidInput(f"the cadence {text[:80]!r} would never end running; the number must be above 0")
    if seconds > LONGEST_DAYS * 86_400:
        raise InvalidInput(f"the cadence {text[:80]!r} is longer than {LONGEST_DAYS} days; write a shorter one")
    return Cadence(f"every {number}{unit}", "every", seconds=seconds)


def _time(text: str, clock: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", clock)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise InvalidInput(f"the cadence {text[:80]!r} names no time of day; write it as 09:00")
    return int(match[1]), int(match[2])


def _day(text: str, name: str) -> int:
    """Return the day's number as cron counts: Sunday is 0."""
    plain = name.casefold()
    for number, day in enumerate(_DAYS):
        if plain in (day, day[:3]):
            return number
    raise InvalidInput(f"the cadence {text[:80]!r} names no day of the week; write mon, tue, wed, thu, fri, sat or sun")


def _cron(text: str, fields: list[str]) -> Cadence:
    from cronsim import CronSim, CronSimError

    cron = " ".join(fields).upper()
    if len(fields) != 5:
        raise InvalidInput(
            f"the cadence {text[:80]!r} has {len(fields)} fields after cron; write five: cron 0 9 * * 1-5"
        )
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, ValueError) as error:
        raise InvalidInput(
            f"the cadence {text[:80]!r} is no cron line ({error}); write five: cron 0 9 * * 1-5"
        ) from error
    except StopIteration as error:
        raise InvalidInput(f"the cadence {text[:80]!r} names a day that never comes; write another") from error
    return Cadence(f"cron {cron}", "calendar", cron=cron)


def _check_glob(text: str, glob: str) -> None:
    if glob.startswith(("/", "~", "!")) or "\\" in glob or ".." in glob.split("/") or not glob.isprintable():
        raise InvalidInput(
            f"the cadence {text[:80]!r} must name files inside the workspace by a relative pattern such as src/**/*.py"
        )
    try:
        glob_pattern(glob)
    except re.error as error:
        raise InvalidInput(f"the cadence {text[:80]!r} holds no pattern that can be read ({error})") from error


@lru_cache(maxsize=1024)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return what matches the relative POSIX paths that a glob means.

    `*` and `?` stay within a name, `**` goes over folders, `{a,b}` is either; a glob without a slash is looked for in
    every folder, and one that ends with a slash means all that lies below.
    """
    if glob.endswith("/"):
        glob += "**"
    if "/" not in glob:
        glob = f"**/{glob}"
    out, place, depth = "", 0, 0
    while place < len(glob):
        rest = glob[place:]
        if rest.startswith("**/"):
            out, place = out + "(?:.*/)?", place + 3
        elif rest.startswith("**"):
            out, place = out + ".*", place + 2
        elif rest[0] == "*":
            out, place = out + "[^/]*", place + 1
        elif rest[0] == "?":
            out, place = out + "[^/]", place + 1
        elif rest[0] == "[" and (match := re.match(r"\[(!?)([^]/]+)\]", rest)):
            members = re.sub(r"([\[\]^&|~])", r"\\\1", match[2])
            out += f"[^/{members}]" if match[1] else f"[{members}]"
            place += match.end()
        elif rest[0] == "{" and "}" in rest:
            out, place, depth = out + "(?:", place + 1, depth + 1
        elif rest[0] == "}" and depth:
            out, place, depth = out + ")", place + 1, depth - 1
        elif rest[0] == "," and depth:
            out, place = out + "|", place + 1
        else:
            out, place = out + re.escape(rest[0]), place + 1
    return re.compile(out, re.DOTALL)


def occurrences(cadence: Cadence, after: datetime, tz: tzinfo) -> Iterator[datetime]:
    """Yield the calendar's times after a moment, in UTC, ascending."""
    from cronsim import CronSim

    last = after
    for moment in CronSim(cadence.cron, after.astimezone(tz)):
        found = moment.astimezone(UTC)
        # Where an hour comes twice, a time must neither come back nor stand still.
        if found > last:
            last = found
            yield found


def next_due(cadence: Cadence, last_run: datetime | None, now: datetime, tz: tzinfo) -> datetime | None:
    """Return when a loop is due, in UTC; a moment that is not after `now` means at once. None: time never makes it due.

    Args:
        cadence: as `parse` read it.
        last_run: when it last ran, or from when on it counts if it never did; aware. None: an interval is due at once,
            a calendar at its first time after `now`.
        now: the clock; aware. All missed times together are one: the first of them is returned.
        tz: the zone of the clock on the user's wall.

    A clock that was set back (`last_run` lies ahead of `now`) costs an interval no more than its own length, and a
    calendar no more than the one time that may already have been served.
    """
    if cadence.kind in ("change", "manual"):
        return None
    # Sums and comparisons in a zone of its own would be those of the clock on the wall.
    now, last_run = now.astimezone(UTC), last_run.astimezone(UTC) if last_run is not None else None
    if cadence.kind == "every":
        return now if last_run is None else min(last_run, now) + timedelta(seconds=cadence.seconds)
    if last_run is None or last_run <= now:
        return next(occurrences(cadence, last_run or now, tz), None)
    ahead = occurrences(cadence, now, tz)
    next(ahead, None)
    second = next(ahead, None)
    unserved = next(occurrences(cadence, last_run, tz), None)
    return min((moment for moment in (second, unserved) if moment is not None), default=None)
