"""A change's hunks: what applying and carrying them gives, for every kind of text."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop import errors
from selfloop.changes import (
    EXECUTABLE,
    REGULAR,
    SYMLINK,
    Clash,
    FileChange,
    Placed,
    apply_hunks,
    carry,
    content_digest,
    decode_text,
    file_change,
    reverse,
    split_lines,
)

pytestmark = pytest.mark.unit

PIECES = ["a", "b", "é", "𝒳", "\u2028", "\x85", "\x0b", "\r", "\n", "\r\n", "\n\n", "\ufeff", "  ", "}"]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
contents = st.one_of(texts.map(str.encode), st.binary(max_size=12), st.just(b""))


def modified(pre: bytes, post: bytes) -> FileChange:
    change = file_change("a.txt", pre=pre, post=post, pre_mode=REGULAR, post_mode=REGULAR)
    assert change is not None
    return change


def ids(change: FileChange) -> set[str]:
    return {hunk.id for hunk in change.hunks}


@given(contents, contents)
def test_all_hunks_give_the_post_image_and_none_the_current_one(pre: bytes, post: bytes) -> None:
    change = file_change("a", pre=pre, post=post, pre_mode=REGULAR, post_mode=REGULAR)
    if change is None:
        assert pre == post
        return
    assert apply_hunks(change, ids(change), pre, REGULAR).content == post
    assert apply_hunks(change, (), pre, REGULAR).content == pre
    assert len(ids(change)) == len(change.hunks)
    back = reverse(change)
    assert back is not None
    assert apply_hunks(back, ids(back), post, REGULAR).content == pre


@given(texts, texts, st.data())
def test_hunks_applied_one_after_another_in_any_order_give_the_post_image(
    pre: str, post: str, data: st.DataObject
) -> None:
    if pre == post:
        return
    change = modified(pre.encode(), post.encode())
    current, applied = pre.encode(), []
    for hunk in data.draw(st.permutations(change.hunks)):
        content = apply_hunks(change, [hunk.id], current, REGULAR, applied=applied).content
        assert content is not None
        current = content
        applied.append(hunk.id)
    assert current == post.encode()


@given(texts, texts)
def test_unchanged_lines_part_the_hunks(pre: str, post: str) -> None:
    if pre == post:
        return
    hunks = [hunk for hunk in modified(pre.encode(), post.encode()).hunks if hunk.kind == "text"]
    assert all(first.end < second.start for first, second in pairwise(hunks))
    lines = split_lines(pre)
    assert all("".join(lines[hunk.start : hunk.end]) == hunk.old for hunk in hunks)


@st.composite
def edited_beside(draw: st.DrawFn) -> tuple[list[str], list[str], list[str], list[str]]:
    """Draw a text, the agent's version, the user's version, and both merged; no line is touched by both."""
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    count = draw(st.integers(1, 25))
    pre, agent, user, both = [], [], [], []
    fresh = iter(range(10_000))
    for index in range(count):
        line = f"line {index}{ending}"
        kind = draw(st.sampled_from(["keep", "keep", "agent", "user"]))
        new = draw(st.sampled_from([0, 1, 3])) if kind != "keep" else 0
        replacement = [f"{kind} {next(fresh)} 𝒳\u2028{ending}" for _ in range(new)]
        pre.append(line)
        agent.extend(replacement if kind == "agent" else [line])
        user.extend(replacement if kind == "user" else [line])
        both.extend(replacement if kind != "keep" else [line])
    return pre, agent, user, both


@given(edited_beside())
def test_edits_of_other_lines_never_change_what_the_hunks_do(drawn: tuple[list[str], ...]) -> None:
    pre, agent, user, both = ("".join(lines).encode() for lines in drawn)
    if pre == agent:
        return
    change = modified(pre, agent)
    assert apply_hunks(change, ids(change), user).content == both


@given(edited_beside())
def test_a_hunk_that_the_user_typed_himself_is_already_there(drawn: tuple[list[str], ...]) -> None:
    pre, agent, _, both = ("".join(lines).encode() for lines in drawn)
    if pre == agent:
        return
    change = modified(pre, agent)
    assert all(isinstance(place, Placed) and place.already for place in carry(change, agent).values())
    assert apply_hunks(change, ids(change), agent).content == agent
    assert apply_hunks(change, (), both).content == both


@given(texts, texts, texts)
def test_whatever_the_user_typed_a_hunk_is_placed_on_its_own_lines_or_clashes(pre: str, post: str, now: str) -> None:
    if pre == post:
        return
    change = modified(pre.encode(), post.encode())
    lines = split_lines(now)
    for place in carry(change, now.encode()).values():
        if isinstance(place, Clash):
            with pytest.raises(errors.Stale):
                apply_hunks(change, [place.hunk.id], now.encode())
            continue
        found = "".join(lines[place.start : place.end])
        # Where the user unified the line endings, the hunk takes them on; a byte order mark may be hidden.
        wanted = place.new if place.already else place.hunk.old
        assert plain(found) == plain(wanted)


def plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")


def test_a_change_in_the_same_line_clashes_and_says_so() -> None:
    change = modified(b"a\nb\nc\n", b"a\nB\nc\n")
    place = carry(change, b"a\nbb\nc\n")[change.hunks[0].id]
    assert isinstance(place, Clash)
    assert "edited" in place.reason
    with pytest.raises(errors.Stale):
        apply_hunks(change, ids(change), b"a\nbb\nc\n")


def test_lines_added_where_a_hunk_inserts_clash() -> None:
    change = modified(b"a\nb\n", b"a\nnew\nb\n")
    assert isinstance(carry(change, b"a\nmine\nb\n")[change.hunks[0].id], Clash)
    assert apply_hunks(change, ids(change), b"A\nb\n").content == b"A\nnew\nb\n"
    assert apply_hunks(change, ids(change), b"a\nB\n").content == b"a\nnew\nB\n"


def test_among_equal_lines_a_hunk_is_never_guessed() -> None:
    change = modified(b"x\n" * 10, b"x\n" * 5 + b"y\n" + b"x\n" * 4)
    assert isinstance(carry(change, b"x\n" * 11)[change.hunks[0].id], Clash)
    assert isinstance(carry(change, b"x\n" * 9)[change.hunks[0].id], Clash)
    assert isinstance(carry(change, b"top\n" + b"x\n" * 10)[change.hunks[0].id], Placed)


def test_lines_are_not_joined_when_the_last_line_ending_goes() -> None:
    change = modified(b"a\nb\n", b"a\nb\nc\n")
    assert isinstance(carry(change, b"a\nb")[change.hunks[0].id], Clash)
    open_ended = modified(b"a\nb\n", b"a\nB")
    assert isinstance(carry(open_ended, b"a\nb\nc\n")[open_ended.hunks[0].id], Clash)


def test_a_hidden_byte_order_mark_is_no_edit() -> None:
    pre, post = "\ufeffa\nb\nc\n".encode(), "\ufeffA\nb\nC\n".encode()
    change = modified(pre, post)
    assert apply_hunks(change, ids(change), b"a\nb\nc\n").content == b"A\nb\nC\n"
    assert apply_hunks(change, ids(change), pre).content == post


def test_line_endings_that_the_editor_unified_are_taken_on() -> None:
    change = modified(b"a\r\nb\nc\rd\nlast\n", b"a\r\nB\nc\rd\nlast\nmore\n")
    result = apply_hunks(change, ids(change), b"a\r\nb\r\nc\r\nd\r\nlast\r\n").content
    assert result == b"a\r\nB\r\nc\r\nd\r\nlast\r\nmore\r\n"
    only_endings = modified(b"a\r\nb\n", b"a\nb\n")
    assert isinstance(carry(only_endings, b"a\r\nb\r\n")[only_endings.hunks[0].id], Clash)
    same = carry(modified(b"a\nb\n", b"a\r\nb\r\n"), b"a\r\nb\r\n")
    assert all(isinstance(place, Placed) and place.already for place in same.values())


def test_equal_hunks_have_ids_of_their_own_and_each_applies_in_its_place() -> None:
    change = modified(b"x\n1\nx\n2\nx\n", b"y\n1\ny\n2\ny\n")
    assert len(ids(change)) == 3
    assert apply_hunks(change, [change.hunks[1].id], b"x\n1\nx\n2\nx\n").content == b"x\n1\ny\n2\nx\n"


def test_ids_and_digests_do_not_depend_on_the_place() -> None:
    first = modified(b"a\nb\n", b"a\nB\n").hunks[0]
    second = modified(b"0\n0\na\nb\nc\n", b"0\n0\na\nB\nc\n").hunks[0]
    other = modified(b"a\nb\n", b"a\nB2\n").hunks[0]
    assert (first.id, first.digest) == (second.id, second.digest)
    assert first.id != other.id
    assert first.digest != other.digest


def test_a_created_file_is_one_whole_hunk_with_its_text() -> None:
    change = file_change("n.txt", pre=None, post="é\r\n".encode(), pre_mode=None, post_mode=REGULAR)
    assert change is not None
    (hunk,) = change.hunks
    assert (change.operation, hunk.kind, hunk.old, hunk.new) == ("create", "whole", "", "é\r\n")
    assert apply_hunks(change, [hunk.id], None).content == "é\r\n".encode()
    assert isinstance(carry(change, b"mine")[hunk.id], Clash)
    place = carry(change, "é\r\n".encode())[hunk.id]
    assert isinstance(place, Placed)
    assert place.already


def test_an_empty_file_is_created_and_deleted() -> None:
    made = file_change("e", pre=None, post=b"", pre_mode=None, post_mode=REGULAR)
    gone = file_change("e", pre=b"", post=None, pre_mode=REGULAR, post_mode=None)
    assert made is not None
    assert gone is not None
    assert apply_hunks(made, ids(made), None).content == b""
    assert apply_hunks(gone, ids(gone), b"").content is None


def test_a_deleted_file_that_was_edited_since_clashes() -> None:
    change = file_change("d", pre=b"a\n", post=None, pre_mode=REGULAR, post_mode=None)
    assert change is not None
    assert len(change.hunks) == 1
    assert isinstance(carry(change, b"a\nb\n")[change.hunks[0].id], Clash)
    assert apply_hunks(change, ids(change), b"a\n").content is None


def test_a_binary_file_is_one_whole_hunk_without_text() -> None:
    change = modified(b"\x00\x01", b"\x00\x02")
    (hunk,) = change.hunks
    assert (hunk.kind, hunk.old, hunk.new) == ("whole", "", "")
    assert hunk.digest != modified(b"\x00\x01", b"\x00\x03").hunks[0].digest
    assert isinstance(carry(change, b"\x00\x09")[hunk.id], Clash)
    assert decode_text(b"\xff") is None
    assert decode_text(b"a\0") is None


def test_a_rename_with_an_edit_and_a_mode_has_a_hunk_for_each() -> None:
    change = file_change(
        "new.sh", old_path="old.sh", pre=b"a\nb\n", post=b"a\nB\n", pre_mode=REGULAR, post_mode=EXECUTABLE
    )
    assert change is not None
    kinds = {hunk.kind: hunk.id for hunk in change.hunks}
    assert set(kinds) == {"rename", "mode", "text"}
    text_only = apply_hunks(change, [kinds["text"]], b"a\nb\n", REGULAR)
    assert (text_only.path, text_only.content, text_only.mode, text_only.removed) == (
        "old.sh",
        b"a\nB\n",
        REGULAR,
        None,
    )
    rest = apply_hunks(change, [kinds["rename"], kinds["mode"]], b"a\nB\n", REGULAR, applied=[kinds["text"]])
    assert (rest.path, rest.content, rest.mode, rest.removed) == ("new.sh", b"a\nB\n", EXECUTABLE, "old.sh")
    back = reverse(change)
    assert back is not None
    assert (back.path, back.old_path, back.operation) == ("old.sh", "new.sh", "rename")


def test_a_file_that_becomes_a_link_is_one_whole_hunk() -> None:
    change = file_change("l", pre=b"text\n", post=b"/etc/passwd", pre_mode=REGULAR, post_mode=SYMLINK)
    assert change is not None
    assert [hunk.kind for hunk in change.hunks] == ["whole"]


def test_equal_versions_are_no_change() -> None:
    assert file_change("a", pre=b"a", post=b"a", pre_mode=REGULAR, post_mode=REGULAR) is None
    assert file_change("a", pre=None, post=None, pre_mode=None, post_mode=None) is None


def test_the_content_digest_sees_every_part_and_not_the_order() -> None:
    one = modified(b"a\n", b"b\n")
    variants = [
        file_change("b.txt", pre=b"a\n", post=b"b\n", pre_mode=REGULAR, post_mode=REGULAR),
        file_change("a.txt", pre=b"a2\n", post=b"b\n", pre_mode=REGULAR, post_mode=REGULAR),
        file_change("a.txt", pre=b"a\n", post=b"b2\n", pre_mode=REGULAR, post_mode=REGULAR),
        file_change("a.txt", pre=b"a\n", post=b"b\n", pre_mode=REGULAR, post_mode=EXECUTABLE),
        file_change("a.txt", old_path="z", pre=b"a\n", post=b"b\n", pre_mode=REGULAR, post_mode=REGULAR),
        file_change("a.txt", pre=b"a\n", post=None, pre_mode=REGULAR, post_mode=None),
    ]
    found = [change for change in variants if change is not None]
    assert len({content_digest([change]) for change in [one, *found]}) == 7
    assert content_digest([one, found[0]]) == content_digest([found[0], one])
    assert content_digest([]) != content_digest([one])


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**32))
def test_large_files_stay_quick(seed: int) -> None:
    source = random.Random(seed)
    pre = [f"{source.randrange(40)}\n" for _ in range(20_000)]
    post = [line for line in pre if source.random() > 0.02]
    unlike = [f"{source.randrange(40)}\n" for _ in range(20_000)]
    for other in (post, unlike):
        change = modified("".join(pre).encode(), "".join(other).encode())
        assert apply_hunks(change, ids(change), "".join(pre).encode()).content == "".join(other).encode()
