"""Copies of a store: made beside running archivers and compactors, checked, and put back.

A backup is a folder that looks like a store's, with a manifest of its files. What it holds was committed at one moment;
what the stream held then and no archiver had read is not in it.
"""

from vibezen.metrics.backup.copying import Made, backup
from vibezen.metrics.backup.manifest import MANIFEST, Manifest, read_manifest
from vibezen.metrics.backup.restoring import restore

__all__ = ["MANIFEST", "Made", "Manifest", "backup", "read_manifest", "restore"]
