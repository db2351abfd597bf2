"""When a loop is due: every form, daylight saving both ways, and clocks that were moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop.errors import InvalidInput
from selfloop.loops.cadence import glob_pattern, next_due, parse

pytestmark = pytest.mark.unit

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
"""Its daylight saving moves by half an hour."""


def local(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def due(cadence: str, last_run: datetime | None, now: datetime, zone: ZoneInfo = BERLIN) -> datetime | None:
    found = next_due(parse(cadence), last_run, now, zone)
    assert found is None or found.tzinfo is UTC
    return found


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("every 10m", "every 10m"),
        ("  Every   90S ", "every 90s"),
        ("every 366d", "every 366d"),
        ("daily 9:00", "daily 09:00"),
        ("DAILY 23:59", "daily 23:59"),
        ("weekly Monday 07:30", "weekly mon 07:30"),
        ("weekly sun 0:00", "weekly sun 00:00"),
        ("cron 0 9 * * 1-5", "cron 0 9 * * 1-5"),
        ("0 9 * * mon-fri", "cron 0 9 * * MON-FRI"),
        ("on change src/**/*.py", "on change src/**/*.py"),
        ("on change docs/My File.md", "on change docs/My File.md"),
        ("manual", "manual"),
    ],
)
def test_a_cadence_is_read_and_written_back_the_same(text: str, kept: str) -> None:
    assert parse(text).text == kept
    assert parse(kept) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every",
        "every 0m",
        "every -5m",
        "every 1.5h",
        "every 10",
        "every 10 m",
        "every 10w",
        "every 367d",
        "every ٣m",
        "daily",
        "daily 24:00",
        "daily 9",
        "daily 09:60",
        "daily at 9",
        "weekly 09:00",
        "weekly someday 09:00",
        "weekly mon",
        "cron",
        "cron 0 9 * *",
        "cron 0 9 * * * *",
        "cron 99 9 * * *",
        "cron 0 0 30 2 *",
        "cron */0 * * * *",
        "on change",
        "on change /etc/passwd",
        "on change ../other/**",
        "on change ~/x",
        "on change a\\b",
        "on change {a,{b}",
        "on commit",
        "manual please",
        "now",
        "@daily",
    ],
)
def test_a_cadence_that_cannot_be_is_refused_in_one_phrase(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert caught.value.message.startswith("the cadence ")
    assert "\n" not in caught.value.message


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text("every daiwk cron*/0123456789:-, smhd", max_size=30))
def test_any_text_is_a_cadence_or_is_refused(text: str) -> None:
    try:
        cadence = parse(text)
    except InvalidInput:
        return
    assert parse(cadence.text) == cadence


def test_an_interval_is_due_at_once_and_then_by_the_time_that_really_passes() -> None:
    now = local("2026-03-29T01:30")
    assert due("every 1h", None, now) == now
    assert due("every 1h", now, now) == now + timedelta(hours=1)
    # In that hour the clock on the wall goes from 2 to 3: the interval does not feel it.
    found = due("every 1h", now, now)
    assert found is not None and found.astimezone(BERLIN) == local("2026-03-29T03:30")
    assert due("every 10m", now - timedelta(days=3), now) == now - timedelta(days=3) + timedelta(minutes=10)


def test_a_calendar_is_due_at_its_next_time_and_a_missed_one_is_in_the_past() -> None:
    now = local("2026-05-04T10:00")  # A Monday.
    assert due("daily 09:00", None, now) == local("2026-05-05T09:00")
    assert due("daily 09:00", local("2026-05-01T09:00"), now) == local("2026-05-02T09:00")
    assert due("weekly mon 09:00", None, now) == local("2026-05-11T09:00")
    assert due("weekly tue 09:00", None, now) == local("2026-05-05T09:00")
    assert due("cron 0 9 * * 6", None, now) == local("2026-05-09T09:00")
    assert due("manual", None, now) is None
    assert due("on change *.py", now, now) is None


def test_a_daily_loop_keeps_its_hour_over_daylight_saving() -> None:
    for zone, spring, autumn in (
        (BERLIN, "2026-03-29", "2026-10-25"),
        (NEW_YORK, "2026-03-08", "2026-11-01"),
        (LORD_HOWE, "2026-10-04", "2026-04-05"),
    ):
        for day in (spring, autumn):
            morning = local(f"{day}T09:00", zone)
            eve = morning - timedelta(hours=20)
            assert due("daily 09:00", eve, eve, zone) == morning


def test_an_hour_that_does_not_exist_is_made_up_right_after_the_gap() -> None:
    eve = local("2026-03-28T02:30")
    found = due("daily 02:30", eve, eve)
    assert found == local("2026-03-29T03:00")
    assert due("daily 02:30", found, found) == local("2026-03-30T02:30")


def test_an_hour_that_comes_twice_counts_once() -> None:
    eve = local("2026-10-24T02:30")
    first = due("daily 02:30", eve, eve)
    assert first == local("2026-10-25T02:30", fold=0)
    assert first is not None
    again = due("daily 02:30", first, first + timedelta(minutes=30))
    assert again == local("2026-10-26T02:30")
    # Asked for the first time between the two: the second passing is no new time.
    assert due("daily 02:30", None, local("2026-10-25T02:10", fold=1)) == local("2026-10-26T02:30")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["daily 02:30", "daily 00:00", "weekly sun 02:15", "cron */20 * * * *", "cron 30 1-3 * * *"]),
    st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE]),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1)),
)
def test_times_only_go_forward(cadence: str, zone: ZoneInfo, start: datetime) -> None:
    now = start.replace(tzinfo=UTC)
    for _ in range(60):
        found = due(cadence, now, now, zone)
        assert found is not None and found > now
        assert found - now < timedelta(days=9)
        now = found


def test_a_clock_that_was_set_back_costs_an_interval_no_more_than_its_length() -> None:
    for back in (timedelta(hours=1), timedelta(days=1), timedelta(days=4000)):
        ran = local("2026-05-04T09:00")
        now = ran - back
        assert due("every 10m", ran, now) == now + timedelta(minutes=10)


def test_a_clock_that_was_set_back_neither_repeats_a_calendar_nor_stops_it() -> None:
    ran = local("2026-05-04T09:00")
    assert due("daily 09:00", ran, ran - timedelta(hours=1)) == local("2026-05-05T09:00")
    assert due("daily 09:00", ran, ran - timedelta(days=1, hours=1)) == local("2026-05-04T09:00")
    assert due("daily 09:00", ran, local("2016-05-04T10:00")) == local("2016-05-06T09:00")
    assert due("weekly mon 09:00", ran, ran - timedelta(days=1)) == local("2026-05-11T09:00")


@pytest.mark.parametrize(
    ("glob", "fits", "misses"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc", "a.py/b"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py", "xsrc/a.py", "src/a.txt"]),
        ("src/", ["src/a", "src/x/y"], ["src", "lib/src/a"]),
        ("src/*", ["src/a"], ["src/x/y"]),
        ("docs/**", ["docs/a", "docs/x/y"], ["docs"]),
        ("**/test_*.py", ["test_a.py", "x/test_b.py"], ["x/atest_b.py"]),
        ("*.{js,ts}", ["a.js", "x/b.ts"], ["a.jsx"]),
        ("file[0-9].txt", ["file1.txt"], ["filea.txt", "file/.txt"]),
        ("file[!0-9].txt", ["filea.txt"], ["file1.txt", "file/.txt"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("a+(b)", ["a+(b)", "x/a+(b)"], ["aab"]),
    ],
)
def test_a_glob_means_what_people_expect(glob: str, fits: list[str], misses: list[str]) -> None:
    assert [path for path in fits if not glob_pattern(glob).fullmatch(path)] == []
    assert [path for path in misses if glob_pattern(glob).fullmatch(path)] == []
