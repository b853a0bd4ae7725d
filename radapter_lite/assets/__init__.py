"""What the package ships, by its place."""

from pathlib import Path

ASSETS = Path(__file__).parent
PICTOSHIFT = ASSETS / "pictoshift.zip"
CORPUS_SAMPLE = ASSETS / "corpus_sample.zip"  # of PictoCLIP's pretraining, made by pretrain/corpus_sample.py
RESULTS = ASSETS / "results"  # the tables of the long runs, made by `radapter-lite bench`
DEMO_DELTA = ASSETS / "demo_delta"  # made by pretrain/demo_delta.py
GLYPHS = ASSETS / "glyphs.tsv"
BOOK = ASSETS / "book"
CLAIMS = ASSETS / "claims.csv"
