"""MetricsStorage: one storage folder, as applications name it."""

from pathlib import Path

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
