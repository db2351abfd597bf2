"""The closed list: programs that only read, and the flags with which they only read.

A flag is listed only if it cannot write, run something, follow links, wait for ever, take names from a file, or reach
outside. So there is no `git`, `sed`, `awk`, `xargs` or `tee`, no `sort -o`, `find -exec` or `tail -f`.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfloop.sandbox.programs import CommandV, Find, Printf, Program, Reader, Test, Words

_NUMBER = r"[+-]?[0-9]{1,9}"
_LIST = r"[0-9,-]{1,40}"
_ANY = r"(?s).*"
_GLOB = r"[\w.*?/@+-]{1,100}"
_NONE = r"(?!)"
_PROGRAM_NAME = r"(?!-)[\w.+-]{1,60}"

_GREP = Reader(
    short="nirlLcvwxEFGohHsqaIzbyTUZ",
    valued={"e": _ANY, "A": _NUMBER, "B": _NUMBER, "C": _NUMBER, "m": _NUMBER},
    long={
        "include": _GLOB, "exclude": _GLOB, "exclude-dir": _GLOB, "color": "never", "colour": "never", "count": None,
        "ignore-case": None, "line-number": None, "recursive": None, "files-with-matches": None, "word-regexp": None,
        "files-without-match": None, "fixed-strings": None, "extended-regexp": None, "invert-match": None,
        "only-matching": None, "no-filename": None, "with-filename": None, "quiet": None, "max-count": _NUMBER,
        "context": _NUMBER, "after-context": _NUMBER, "before-context": _NUMBER,
    },
    skip=1,
    skip_unless="e",
    reads_folder="r",
)  # fmt: skip
_RG = Reader(
    short="nilcvwxFosSUHINp0",
    valued={"e": _ANY, "A": _NUMBER, "B": _NUMBER, "C": _NUMBER, "m": _NUMBER, "t": "[a-z0-9]{1,20}",
            "T": "[a-z0-9]{1,20}", "g": r"!?" + _GLOB, "d": r"[0-9]{1,4}"},
    long={
        "type": "[a-z0-9]{1,20}", "glob": r"!?" + _GLOB, "iglob": r"!?" + _GLOB, "line-number": None, "count": None,
        "no-heading": None, "heading": None, "ignore-case": None, "smart-case": None, "case-sensitive": None,
        "files-with-matches": None, "files-without-match": None, "word-regexp": None, "fixed-strings": None,
        "only-matching": None, "invert-match": None, "no-filename": None, "with-filename": None, "column": None,
        "no-line-number": None, "multiline": None, "max-count": _NUMBER, "context": _NUMBER, "after-context": _NUMBER,
        "before-context": _NUMBER, "max-depth": r"[0-9]{1,4}", "color": "never", "sort": "path", "trim": None,
        "stats": None, "vimgrep": None,
    },
    skip=1,
    skip_unless="e",
    least=0,
)  # fmt: skip
_SUM = Reader()

PROGRAMS: Mapping[str, Program] = {
    "ls": Reader(
        short="aA1lhrtSRdFpinscuUvXCmxgoGqQNbBk",
        long={
            "all": None,
            "almost-all": None,
            "human-readable": None,
            "recursive": None,
            "reverse": None,
            "size": None,
            "directory": None,
            "inode": None,
            "color": "never",
            "group-directories-first": None,
            "classify": None,
            "sort": "(?:size|time|none|extension|version)",
            "full-time": None,
        },
        least=0,
    ),
    "cat": Reader(short="nbsAeEtTvu"),
    "head": Reader(
        short="qv", valued={"n": _NUMBER, "c": _NUMBER}, long={"lines": _NUMBER, "bytes": _NUMBER}, number_as_flag=True
    ),
    "tail": Reader(
        short="qv", valued={"n": _NUMBER, "c": _NUMBER}, long={"lines": _NUMBER, "bytes": _NUMBER}, number_as_flag=True
    ),
    "wc": Reader(short="lwcmL", long={"lines": None, "words": None, "bytes": None, "chars": None}),
    "nl": Reader(valued={"b": "[at]", "w": _NUMBER}),
    "tac": Reader(),
    "rev": Reader(),
    "sort": Reader(
        short="nrufbdghiMVzsc",
        valued={"k": r"[0-9.,a-zA-Z]{1,20}", "t": r"."},
        long={
            "numeric-sort": None,
            "reverse": None,
            "unique": None,
            "human-numeric-sort": None,
            "version-sort": None,
            "ignore-case": None,
        },
    ),
    "uniq": Reader(
        short="cduiz",
        valued={"f": _NUMBER, "s": _NUMBER, "w": _NUMBER},
        long={"count": None, "repeated": None, "unique": None, "ignore-case": None},
        most=1,
    ),
    "cut": Reader(
        short="sz",
        valued={"d": r".", "f": _LIST, "c": _LIST, "b": _LIST},
        long={"delimiter": r".", "fields": _LIST, "characters": _LIST, "bytes": _LIST, "complement": None},
    ),
    "tr": Reader(short="cCdst", filters=True, operand=_ANY, least=1, most=2),
    "paste": Reader(short="sz", valued={"d": r".{1,4}"}),
    "join": Reader(valued={"1": _NUMBER, "2": _NUMBER, "t": r"."}, least=2, most=2),
    "comm": Reader(short="123", least=2, most=2),
    "fold": Reader(short="sb", valued={"w": _NUMBER}),
    "expand": Reader(short="i", valued={"t": _NUMBER}),
    "column": Reader(short="tx", valued={"s": r".{1,4}", "c": _NUMBER}),
    "diff": Reader(
        short="urqwBbiNsy",
        valued={"U": _NUMBER, "C": _NUMBER},
        long={
            "unified": None,
            "recursive": None,
            "brief": None,
            "ignore-all-space": None,
            "color": "never",
            "side-by-side": None,
        },
        least=2,
        most=2,
    ),
    "cmp": Reader(short="slb", least=2, most=2),
    "stat": Reader(short="t", valued={"c": r"[%\w .,:=-]{1,80}"}, long={"format": r"[%\w .,:=-]{1,80}", "terse": None}),
    "file": Reader(short="bikN", long={"brief": None, "mime-type": None, "mime": None, "mime-encoding": None}),
    "du": Reader(
        short="shackbmx",
        valued={"d": r"[0-9]{1,4}"},
        long={
            "summarize": None,
            "human-readable": None,
            "max-depth": r"[0-9]{1,4}",
            "all": None,
            "total": None,
            "bytes": None,
            "apparent-size": None,
        },
        least=0,
    ),
    "tree": Reader(
        short="adfFpshDrtv",
        valued={"L": r"[0-9]{1,3}", "I": r"[\w.*?|/-]{1,200}", "P": r"[\w.*?|/-]{1,200}"},
        long={"dirsfirst": None, "noreport": None, "gitignore": None},
        least=0,
    ),
    "realpath": Reader(),
    "readlink": Reader(short="fn"),
    "basename": Reader(operand=r"(?!-).*", least=1, most=2),
    "dirname": Reader(operand=r"(?!-).*", least=1, most=20),
    "md5sum": _SUM,
    "sha1sum": _SUM,
    "sha224sum": _SUM,
    "sha256sum": _SUM,
    "sha384sum": _SUM,
    "sha512sum": _SUM,
    "b2sum": _SUM,
    "cksum": _SUM,
    "sum": _SUM,
    "od": Reader(short="cxbdov", valued={"A": "[doxn]", "t": r"[acdfoux0-9z]{1,8}", "N": _NUMBER, "j": _NUMBER}),
    "hexdump": Reader(short="Cbcdxv", valued={"n": _NUMBER, "s": _NUMBER}),
    "xxd": Reader(short="pubi", valued={"l": _NUMBER, "s": _NUMBER, "c": _NUMBER, "g": _NUMBER}, most=1),
    "strings": Reader(short="a", valued={"n": _NUMBER}),
    "grep": _GREP,
    "egrep": _GREP,
    "fgrep": _GREP,
    "rg": _RG,
    "find": Find(),
    "echo": Words(),
    "printf": Printf(),
    "test": Test(),
    "[": Test(bracket=True),
    "true": Reader(operand=_NONE, least=0, most=0),
    "false": Reader(operand=_NONE, least=0, most=0),
    "pwd": Reader(short="LP", operand=_NONE, least=0, most=0),
    "date": Reader(
        short="uR", valued={"I": "(?:date|hours|minutes|seconds)"}, operand=r"\+[%\w :./,T-]{1,80}", least=0, most=1
    ),
    "whoami": Reader(operand=_NONE, least=0, most=0),
    "id": Reader(short="ugGnr", operand=_NONE, least=0, most=0),
    "uname": Reader(short="asnrvmpio", operand=_NONE, least=0, most=0),
    "nproc": Reader(operand=_NONE, least=0, most=0),
    "arch": Reader(operand=_NONE, least=0, most=0),
    "seq": Reader(operand=r"[0-9]{1,5}", least=1, most=3),
    "which": Reader(short="a", operand=_PROGRAM_NAME, least=1, most=20),
    "type": Reader(short="tpPa", operand=_PROGRAM_NAME, least=1, most=20),
    "command": CommandV(),
}
