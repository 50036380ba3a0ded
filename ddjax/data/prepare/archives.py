"""The archives a named data set is made from: what is missing, and what to do then.

TFDS asks for archives while it prepares a set. Each is looked for before anything is
downloaded, since TFDS itself tries a host that cannot be reached again and again, for
minutes and without a word.
"""

import contextlib
import pathlib
import re
import shutil
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable

import jax

__all__ = ["few_retries", "own_threads", "readable", "require_manual", "watch"]

_PATIENCE = 5.0  # seconds for a host to answer
_RETRIES = 5  # TFDS waits 0.4, 0.8, ... seconds between them: 6 in all
_LISTED = 20  # files named in one message


def watch(builder, manual: pathlib.Path, repeat: str, observe: Callable) -> None:
    """Makes a builder look for its archives before it downloads any.

    Args:
      builder: of TFDS; changed.
      manual: where files put there by hand are looked for, under their own names.
      repeat: the command that prepares the set, for the messages.
      observe: called with a line that says what is downloaded.

    While it prepares, the builder raises a ValueError where a host cannot be reached,
    the disk is too small, or a file has not the size it should have.
    """
    make = builder._make_download_manager

    def make_watched(**options):
        manager = make(**options)
        for name in ("download", "download_and_extract"):
            setattr(manager, name, watched(getattr(manager, name), manager))
        return manager

    def watched(download, manager):
        def get(urls):
            _require(builder, manager, _resources(urls), manual, repeat, observe)
            return download(urls)

        return get

    builder._make_download_manager = make_watched


@contextlib.contextmanager
def few_retries():
    """While it is entered, TFDS gives a download up after seconds, not minutes."""
    from tensorflow_datasets.core.download import downloader  # slow to import

    before, downloader.MAX_RETRIES = downloader.MAX_RETRIES, _RETRIES
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before


@contextlib.contextmanager
def own_threads():
    """While it is entered, TFDS unpacks in threads that end with it.

    TFDS stops at the first archive that is wrong, while its threads go on unpacking the
    others, into a folder that was removed meanwhile.
    """
    from tensorflow_datasets.core.download import extractor  # slow to import

    own, before = extractor._Extractor(), extractor.get_extractor
    extractor.get_extractor = lambda: own
    try:
        yield
    finally:
        extractor.get_extractor = before
        own._executor.shutdown()  # waits; what is not begun is refused


def require_manual(builder, manual: pathlib.Path, repeat: str) -> None:
    """Refuses a set whose files must be put there by hand, and are not there.

    Args:
      builder: of TFDS.
      manual: where the files should be.
      repeat: the command that prepares the set.

    Raises:
      ValueError: a file that the set's instructions name is not there, or has not the
        size it should have; or nothing is there at all; or the disk is too small.
    """
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if not instructions:
        return
    instructions = re.sub(r"\s+", " ", instructions).strip()
    named = {
        _file_name(url, info): info
        for url, info in (builder.url_infos or {}).items()
        if _file_name(url, info) in instructions
    }
    missing = []
    for name, info in named.items():
        if (manual / name).is_file():
            _check_size(builder.name, manual / name, info)
        else:
            missing.append(f"  {name}  {readable(info.size)}")
    if missing or not manual.is_dir() or not any(manual.iterdir()):
        raise ValueError(
            f"{builder.name} cannot be downloaded by a program. Its files belong into "
            f"the folder {manual}.\n"
            + "".join(f"{line}  (missing)\n" for line in missing)
            + f"Of the set: {instructions}\nThen run: {repeat}"
        )
    _check_space(builder, 0, sum(info.size for info in named.values()))


def readable(size: int) -> str:
    """A number of bytes for people."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"


def _resources(urls) -> list:
    """The flat list of what was asked for: one URL, or a tree of URLs."""
    from tensorflow_datasets import download  # slow to import

    return [
        url if isinstance(url, download.Resource) else download.Resource(url=str(url))
        for url in jax.tree.leaves(urls)
    ]


def _require(builder, manager, resources, manual, repeat, observe) -> None:
    """Refuses what would fail later: a missing file, host or place on the disk."""
    infos = manager._url_infos
    for resource in resources:
        info = infos.get(resource.url)
        if info is not None:
            # Old records have no name; TFDS would then not look among the manual ones.
            info.filename = info.filename or _file_name(resource.url, info)
            if (manual / info.filename).is_file():
                _check_size(builder.name, manual / info.filename, info)
    missing = [r.url for r in resources if not _is_here(manager, r, manual)]
    servers = {_server(url) for url in missing} - {None}
    failures = [reason for s in sorted(servers) if (reason := _unreachable(*s))]
    if failures:
        raise ValueError(
            f"{builder.name}: {len(missing)} of {len(resources)} files are missing, "
            f"and {failures[0]}. Get them on a machine with internet, and put them, "
            f"under these names, into the folder {manual}\n"
            + _listing(missing, infos)
            + f"\nThen run: {repeat}"
        )
    sizes = {r.url: infos[r.url].size for r in resources if r.url in infos}
    to_download = sum(sizes.get(url, 0) for url in missing)
    _check_space(builder, to_download, sum(sizes.values()))
    if missing:
        line = f"downloading {len(missing)} files, {readable(to_download)}"
        observe(f"{builder.name}: {line}")


def _check_space(builder, to_download: int, archives: int) -> None:
    """Refuses a disk on which not even the downloads and the records have room."""
    # The records hold the same images, and are about as large as the archives.
    needed = to_download + max(archives, builder.info.dataset_size or 0)
    folder = pathlib.Path(builder.data_path)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{builder.name} needs about {readable(needed)} on the disk, and {folder} "
            f"has {readable(free)} left. Make room, or choose another --folder."
        )


def _is_here(manager, resource, manual: pathlib.Path) -> bool:
    """Whether TFDS will find a file without the network."""
    info = manager._url_infos.get(resource.url)
    if info is not None and (manual / info.filename).is_file():
        return True
    return any(
        find(resource, legacy_mode=legacy)
        for find in (manager._get_checksum_dl_result, manager._get_url_dl_result)
        for legacy in (False, True)
    )


def _check_size(name: str, path: pathlib.Path, info) -> None:
    if path.stat().st_size != int(info.size):
        raise ValueError(
            f"{name}: {path} has {path.stat().st_size} bytes, and should have "
            f"{int(info.size)}. Get it again, if its copy was cut off; if it belongs "
            f"to another set, put this set's files into {path.parent / name}."
        )


def _file_name(url: str, info) -> str:
    if info is not None and info.filename:
        return info.filename
    return pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name


def _listing(urls: list[str], infos) -> str:
    lines = []
    for url in urls[:_LISTED]:
        if url in infos:
            name = _file_name(url, infos[url])
            lines.append(f"  {name}  {readable(infos[url].size)}  {url}")
        else:
            lines.append(f"  {url}  (TFDS knows no checksum: it must be downloaded)")
    if len(urls) > _LISTED:
        lines.append(f"  and {len(urls) - _LISTED} more")
    return "\n".join(lines)


def _server(url: str) -> tuple[str, int] | None:
    """(host, port) that a download would talk to: the URL's own, or the proxy's."""
    parts = urllib.parse.urlsplit(url)
    if parts.hostname is None:
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    ports = {"https": 443, "ftp": 21}
    return parts.hostname, parts.port or ports.get(parts.scheme, 80)


def _unreachable(host: str, port: int) -> str:
    """Why a server does not answer, or nothing."""
    reasons = [f"{host} does not answer within {_PATIENCE:g} s"]

    def connect():
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
            reasons[:] = [""]
        except OSError as error:
            reasons[:] = [f"{host} cannot be reached ({error})"]

    # Looking a name up has no time limit of its own; a daemon holds nobody up.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return reasons[0]
