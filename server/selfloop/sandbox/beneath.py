"""Opens what lies beneath a folder, and nothing else: the kernel decides, or a walk from descriptor to descriptor.

Invariant: a path is given to the kernel as it came. It is never normalised, decoded or resolved first and opened later,
so nothing that is renamed or linked meanwhile leads out (openat2(2), RESOLVE_BENEATH).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from functools import cache

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
MAX_LINKS = 40
O_PATH = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)


def open_beneath(root: int, path: str, flags: int, *, links: bool = True) -> int:
    """Open a path beneath a descriptor; without `links`, or where it has `..`, no component may be a link.

    Raises:
        OSError: EXDEV or ELOOP where it leads, or might lead, outside.
    """
    flags |= os.O_CLOEXEC
    links = links and ".." not in path.split("/")
    if has_openat2():
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
        return _openat2(root, path, flags, resolve)
    return _walk(root, path, flags, links=links)


@cache
def has_openat2() -> bool:
    """Tell whether the kernel can confine a lookup itself (Linux 5.6, and not forbidden by a container)."""
    if not sys.platform.startswith("linux") or platform.machine() == "alpha":
        return False
    try:
        os.close(_openat2(-100, ".", O_PATH | os.O_CLOEXEC, _RESOLVE_BENEATH))
    except OSError:
        return False
    return True


class _OpenHow(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _syscall() -> ctypes._NamedFuncPointer:
    return ctypes.CDLL(None, use_errno=True).syscall


def _openat2(root: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags, 0, resolve)
    for _ in range(64):
        descriptor = _syscall()(
            ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(root), os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if descriptor >= 0:
            return int(descriptor)
        # EAGAIN: something was renamed meanwhile, so the kernel could not be sure of a `..`.
        if (number := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _walk(root: int, path: str, flags: int, *, links: bool) -> int:
    """Do in user space what RESOLVE_BENEATH does: one component at a time, never through a link that is not checked."""
    ahead = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    trail = [os.dup(root)]
    hops = 0
    wants_folder = path.endswith("/") or bool(flags & os.O_DIRECTORY)
    try:
        while ahead:
            part = ahead.pop()
            if part == "..":
                if len(trail) == 1:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                os.close(trail.pop())
                continue
            target = link_target(trail[-1], part)
            if target is not None:
                hops += 1
                if not links or hops > MAX_LINKS or (flags & os.O_NOFOLLOW and not ahead):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                ahead.extend(piece for piece in reversed(target.split("/")) if piece not in ("", "."))
            elif ahead or wants_folder:
                trail.append(
                    os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=trail[-1])
                )
            else:
                return os.open(part, flags | os.O_NOFOLLOW, dir_fd=trail[-1])
        return os.dup(trail[-1])
    finally:
        for descriptor in trail:
            os.close(descriptor)


def link_target(folder: int, name: str) -> str | None:
    """Return where a link points, None for what is no link."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
