"""MetricsStorage: one storage folder, as applications name it."""

from pathlib import Path

from vibezen.metrics.errors import StoreMismatch
from vibezen.metrics.layout import Layout, StoreFile


class MetricsStorage:
    """The store in `storage_dir`. Building it touches nothing; `open()` makes the folder a store if it is none."""

    def __init__(self, storage_dir: Path | str = "metrics_data") -> None:
        self.layout = Layout(Path(storage_dir).expanduser().absolute())

    @property
    def path(self) -> Path:
        return self.layout.root

    def open(self) -> StoreFile:
        """The store's identity. Raises StoreError when the folder cannot be used."""
        return self.layout.create()


def check_same_store(layout: Layout, known: object) -> None:
    """One server, one folder: raise StoreMismatch when the store that a server knows (`keys.store`, None when it knows
    none yet) is not the one in this folder."""
    ours = layout.read().id
    if isinstance(known, bytes) and known.decode() != ours:
        raise StoreMismatch(
            f"storage folder {layout.root} is store {ours}, but the server's events belong to store {known.decode()}; "
            "use that store's folder, or another redis.prefix"
        )
