"""Build the bundled sentiment set from the human ratings in the source distribution of vaderSentiment 3.3.2 (MIT).

    python benchmarks/make_sentiment.py                      # downloads the source distribution with pip
    python benchmarks/make_sentiment.py --sdist FILE.tar.gz  # or takes it from a file
    python benchmarks/make_sentiment.py --check-only         # writes nothing, compares what is there

Hutto & Gilbert (ICWSM 2014) had 20 people rate each sentence from -4 to 4. Kept: the domains amazon, tweets and nyt
with a mean rating of at least 0.5 either way. The domain ``movie`` is never used, nor any text that occurs there: most
of the SST-2 dev set does. Two runs write the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
# The order of the domains in a table of all ratings, and the name of each one's file.
FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}
DOMAINS = ("amazon", "tweets", "nyt")
SMALLEST_SCORE = 0.5
FEWEST_WORDS = 3  # "cool." or "wow!" are everybody's words: they meet by chance in other test sets
DEV_SHARE = 0.14
OUT = Path(__file__).resolve().parents[1] / "src" / "bitpress" / "data" / "sentiment"


@dataclass(frozen=True)
class Rating:
    """A sentence with its mean rating, -4..4."""

    domain: str
    score: float
    sentence: str

    @property
    def label(self) -> str:
        return "positive" if self.score > 0 else "negative"

    @property
    def key(self) -> str:
        """The sentence without case, accents, punctuation and spacing: equal keys are one text."""
        text = unicodedata.normalize("NFKD", html.unescape(self.sentence)).casefold()
        return " ".join(re.findall(r"[^\W_]+", "".join(c for c in text if not unicodedata.combining(c))))


def download(folder: Path) -> Path:
    """The source distribution from the package index."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", PACKAGE]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(folder.glob("*.tar.gz"))


def read_sdist(path: Path) -> tuple[list[Rating], str]:
    """All ratings, domain by domain, and the licence text. The ratings are in an archive inside the archive."""
    with tarfile.open(path) as outer:
        members = {Path(name).name: name for name in outer.getnames()}
        licence = _member(outer, members["LICENSE.txt"]).decode("utf-8")
        inner_bytes = _member(outer, members["hutto_ICWSM_2014.tar.gz"])
    ratings = []
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        for domain, name in FILES.items():
            for line in _member(inner, f"hutto_ICWSM_2014/{name}").decode("utf-8").split("\n"):
                if line.strip():
                    _, score, sentence = line.split("\t")
                    ratings.append(Rating(domain, float(score), " ".join(sentence.split())))
    return ratings, licence.replace("\r\n", "\n").rstrip() + "\n"


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name}: not a file in the archive")
    return file.read()


def as_table(ratings: list[Rating]) -> str:
    """All ratings as a tsv ``domain score sentence`` with scores of four decimals."""
    return "domain\tscore\tsentence\n" + "".join(f"{r.domain}\t{r.score:.4f}\t{r.sentence}\n" for r in ratings)


def select(ratings: list[Rating]) -> list[Rating]:
    """The rows to use: rated clearly, of some words, each text once, no text of two labels, none from movies."""
    in_movies = {r.key for r in ratings if r.domain == "movie"}
    labels: dict[str, set[str]] = {}
    clear = [r for r in ratings if r.domain in DOMAINS and abs(r.score) >= SMALLEST_SCORE]
    for rating in clear:
        labels.setdefault(rating.key, set()).add(rating.label)
    chosen: dict[str, Rating] = {}
    for rating in clear:
        enough = len(rating.key.split()) >= FEWEST_WORDS
        if enough and rating.key not in in_movies and len(labels[rating.key]) == 1:
            chosen.setdefault(rating.key, rating)
    return list(chosen.values())


def split(rows: list[Rating]) -> tuple[list[Rating], list[Rating]]:
    """(train, dev): of each domain and label the same share goes to dev, chosen and ordered by a hash of the text."""
    ordered = sorted(rows, key=lambda r: hashlib.sha256(f"bitpress sentiment\n{r.key}".encode()).digest())
    totals, taken = Counter((r.domain, r.label) for r in ordered), Counter[tuple[str, str]]()
    train, dev = [], []
    for row in ordered:
        group = (row.domain, row.label)
        if taken[group] < round(DEV_SHARE * totals[group]):
            taken[group] += 1
            dev.append(row)
        else:
            train.append(row)
    # Dev rows were taken from the front of the order; that order is a hash, so both parts are shuffled.
    return train, dev


def as_bytes(rows: list[Rating]) -> bytes:
    """Gzipped tsv ``sentence label domain`` without a time stamp or file name, so that it is reproducible."""
    text = "sentence\tlabel\tdomain\n" + "".join(f"{r.sentence}\t{r.label}\t{r.domain}\n" for r in rows)
    return gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)


def plain(content: bytes) -> bytes:
    """Unzipped where zipped: two versions of zlib may pack the same text differently."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def describe(rows: list[Rating]) -> dict[str, str]:
    """Row count by domain, mean words a text and majority share, as text."""
    domains, labels = Counter(r.domain for r in rows), Counter(r.label for r in rows)
    label, most = labels.most_common(1)[0]
    return {
        "rows": f"{len(rows):,}",
        **{domain: f"{domains[domain]:,}" for domain in DOMAINS},
        "majority": f"{100 * most / len(rows):.1f} % {label}",
        "words": f"{sum(len(r.sentence.split()) for r in rows) / len(rows):.1f}",
    }


def readme(train: list[Rating], dev: list[Rating]) -> str:
    parts = {"train": describe(train), "dev": describe(dev)}
    keys = list(parts["train"])
    lines = [f"| part | {' | '.join(keys)} |", "|" + "---|" * (len(keys) + 1)]
    lines += [f"| {name} | {' | '.join(part[key] for key in keys)} |" for name, part in parts.items()]
    table = "\n".join(lines)
    return f"""# Bundled sentiment set

Sentences from product reviews (amazon), tweets and newspaper editorials (nyt), labelled `positive` or `negative`.

{table}

(`words`: mean number of space-separated words in a text.)

**Source and licence.** Ratings by 20 people a sentence from the source distribution of `{PACKAGE}`
on PyPI, MIT licence, copyright 2016 C.J. Hutto (`LICENSE` beside this file). C.J. Hutto and E. Gilbert, *VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text*, ICWSM 2014.

**How it was made.** `benchmarks/make_sentiment.py` of the bitpress repository: domains amazon, tweets and nyt; mean
rating of at least {SMALLEST_SCORE} either way, the label is its sign; white space collapsed, texts otherwise unchanged
(HTML entities such as `&amp;` included). Each text occurs once in the whole set, compared without case, punctuation
and spacing; texts rated both ways or of fewer than {FEWEST_WORDS} words are left out. The domain movie is not used,
nor any text that occurs in it, because it overlaps the SST-2 dev set. Train and dev are a fixed split by a hash of the
text, with equal shares of domain and label.

Columns: `sentence`, `label`, `domain`; tab-separated, gzipped, UTF-8, quotation marks are part of the text.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sdist", type=Path, help="the source distribution, instead of downloading it")
    parser.add_argument("--ratings", type=Path, help="a tsv 'domain score sentence' that must equal the ratings read")
    parser.add_argument("--check-only", action="store_true", help="write nothing; fail where the files differ")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratings, licence = read_sdist(arguments.sdist or download(Path(folder)))
    if arguments.ratings and arguments.ratings.read_text(encoding="utf-8") != as_table(ratings):
        raise SystemExit(f"{arguments.ratings}: differs from the ratings in {PACKAGE}")
    train, dev = split(select(ratings))
    files = {
        "train.tsv.gz": as_bytes(train),
        "dev.tsv.gz": as_bytes(dev),
        "LICENSE": licence.encode(),
        "README.md": readme(train, dev).encode(),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if not arguments.check_only:
            (OUT / name).write_bytes(content)
        elif plain((OUT / name).read_bytes()) != plain(content):
            raise SystemExit(f"{OUT / name}: differs from what this script makes")
        print(f"{name}: {len(content):,} bytes")
    for name, rows in (("train", train), ("dev", dev)):
        print(name, describe(rows), dict(Counter(f"{r.domain} {r.label}" for r in rows)))


if __name__ == "__main__":
    main()
