"""Is a whole store sound? Its segments, and everything beside them: commits, state, sensors, journal, rejects, rollups.

Nothing is changed, and an engine may run meanwhile: what it deletes while it is looked at is not missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, HeadraceError, NotFound
from headrace.ingest.journal_reader import Damage, list_objects, read_records
from headrace.ingest.rejects_log import FOLDER as REJECTS
from headrace.store.commits import FOLDER as COMMITS
from headrace.store.commits import list_commits, read_commit, read_state, unsealed_json
from headrace.store.manifests import COLD_MANIFESTS, WARM_MANIFESTS, ColdManifest, Manifest, read_version
from headrace.store.query import Store
from headrace.store.rollups import FOLDER as ROLLUPS
from headrace.store.rollups import STATE_FILE
from headrace.store.verify import Harm, Tell, Verification, verify_store

_DIGEST_BYTES = 8
_TRIES = 8
_SKIP = "start with --skip-damaged to go on without"


def verify_folder(disk: Disk, tell: Tell = lambda i, n, name: None) -> Verification:
    """Read all of a store.

    Cost: about 0.1 ms a row of a segment and 10 ns a sample, and one pass over the journal.
    """
    try:
        store = Store.open(disk)
    except HeadraceError as e:
        found = Verification(harms=[Harm("directory", str(e))])
    else:
        found = verify_store(disk, store, tell)
        found.harms += [*_sensors(store), *_states(disk, store), *_journal(disk, store)]
    # What the view told of in its own words is told once.
    found.harms = [harm for harm in found.harms if harm.name != "commits and manifests"]
    found.harms += [*_sealed(disk), *_gaps(disk), *_tables(disk)]
    return found


def _sealed(disk: Disk) -> Iterator[Harm]:
    """Commits, manifests and the rollups' notes whose checksum or content is wrong."""
    manifests = WARM_MANIFESTS.partition("/")[0]
    for path in [*disk.list(COMMITS), *disk.list(manifests), *disk.list(ROLLUPS)]:
        if not path.endswith(".json"):
            continue
        try:
            if path.startswith(COMMITS):
                read_commit(disk, path)
            elif path.startswith(WARM_MANIFESTS):
                read_version(disk, Manifest, path)
            elif path.startswith(COLD_MANIFESTS):
                read_version(disk, ColdManifest, path)
            else:
                unsealed_json(disk.read(path), path)
        except NotFound:
            continue
        except CorruptionError as e:
            text = str(e) if str(e).startswith(path) else f"{e}; restore it from a backup"
            yield Harm(path, text)


def _gaps(disk: Disk) -> Iterator[Harm]:
    """Commits that are missing between two that are there, behind the last one that repeats the whole view."""
    keys = list_commits(disk)
    for before, after in pairwise(keys):
        if after[0] != before[0] or after[1] == before[1] + 1:
            continue
        try:
            path = f"{COMMITS}/{after[0]:08d}/{after[1]:08d}.json"
            if read_commit(disk, path).base is not None:
                continue  # those before it were let go of
        except (NotFound, CorruptionError):
            continue
        if before in list_commits(disk):
            text = (
                f"commits {before[1] + 1} to {after[1] - 1} are missing before it; restore them from a backup"
            )
            yield Harm(path, text)


def _sensors(store: Store) -> Iterator[Harm]:
    """Sensors that the newest commit counts on and the directory does not have."""
    name = store.refresh().commits.directory
    n_slots = int(name.rpartition("/")[2].partition(".")[0]) if name else 0
    if store.directory.n_slots < n_slots:
        text = f"{n_slots:,} groups are in the store, the files here have {store.directory.n_slots:,}"
        yield Harm("directory", f"{text}; restore it from a backup")


def _states(disk: Disk, store: Store) -> Iterator[Harm]:
    """Snapshots of shards that are missing or damaged."""
    for shard, position in sorted(store.refresh().commits.shards.items()):
        try:
            data = read_state(disk, position)
        except NotFound:
            if store.refresh().commits.shards[shard].state == position.state:
                text = f"it is missing, the state of shard {shard}; restore it from a backup, or {_SKIP} it"
                yield Harm(position.state_path, text)
            continue
        if data is None:
            continue
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if xxhash.xxh3_64_digest(body) != digest:
            text = f"its checksum does not match, the state of shard {shard}; restore it from a backup, or {_SKIP} it"
            yield Harm(position.state_path, text)


def _journal(disk: Disk, store: Store) -> Iterator[Harm]:
    """What of the journal that is not in segments yet is missing or can't be read."""
    view = store.refresh().commits
    if view.last == (0, 0) and not list_objects(disk):
        return
    owners = [one.incarnation for one in list_objects(disk)]
    if max(owners, default=0) < view.last[0]:
        text = (
            f"it ends with owner {max(owners, default=0)}, the commits know of {view.last[0]}; restore it from a backup, or "
            f"{_SKIP} what was not flushed yet"
        )
        yield Harm("journal", text)
        return
    remedy = f"restore it from a backup, or {_SKIP}"
    for _ in range(_TRIES):
        after_seq = view.trim_seq(range(store.directory.n_shards))
        damages: list[Damage] = []
        try:
            deque(read_records(disk, None if after_seq < 0 else after_seq, damages.append), maxlen=0)
        except NotFound:
            newer = store.refresh().commits
            if newer.last != view.last:
                view = newer  # an engine flushed and trimmed meanwhile
                continue
            yield Harm(
                "journal", f"it does not reach back to record {after_seq + 1}; {remedy} what is missing"
            )
        yield from (Harm(one.path, f"{one.text}; {remedy} them") for one in damages)
        return


def _tables(disk: Disk) -> Iterator[Harm]:
    """Kept rejects and rollups that can't be read, each page against its checksum."""
    remedies = {
        REJECTS: "restore it from a backup, or delete it and do without its rejects",
        ROLLUPS: f"delete it and {STATE_FILE}, and rollups are written anew",
    }
    for folder, remedy in remedies.items():
        for path in disk.list(folder):
            if not path.endswith(".parquet"):
                continue
            try:
                file = pq.ParquetFile(pa.BufferReader(disk.read(path)), page_checksum_verification=True)
                for group in range(file.num_row_groups):
                    file.read_row_group(group, use_threads=False)
            except NotFound:
                continue
            except (OSError, pa.ArrowException) as e:
                yield Harm(path, f"it is damaged: {e}; {remedy}")
