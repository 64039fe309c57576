"""Reports: what happened in a period, against the period before, as data, JSON, Markdown, CSV and one HTML file.

A definition (YAML, built-in or the reader's own) says which numbers are shown and how. Its questions go to the
Gatherer, so that the rules of sources and exactness hold; what came of them is one `Report`, which every
format renders.

definition → plan of readings → numbers → comparison → report → format
"""
