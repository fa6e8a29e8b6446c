"""Sentences a second of masked-word candidates: one mask at a time, as released with TinyBERT (one input a call, every
position decoded), against batches, with one and with several masks an input.

    bitpress pretrain ENCODER --corpus 'text/*.txt.gz' --task mlm --out mlm/
    python benchmarks/augmentation.py mlm/ train.tsv --task glue/sst2

The same sentences in turns, the median of the turns; a line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bitpress.augment import MaskedWords, replaceable, stop_words
from bitpress.data import get_task, read_dataset
from bitpress.encoder import MaskedLanguageHead, load_classifier, load_extra_tensors
from bitpress.encoder.masked_lm import PREFIX
from bitpress.runtime.tokenization import Tokenizer


@torch.inference_mode()
def one_at_a_time(made: MaskedWords, sentences: list[list[str]], positions: list[list[int]]) -> None:
    """The released way, in the same encoder: a forward pass of one input for each word, the head on all positions."""
    for words, wanted in zip(sentences, positions, strict=True):
        for position in wanted:
            for one in made._inputs(0, words, [position]):
                hidden, _, _ = made.model.encode(torch.tensor([one.ids]), None, torch.tensor([one.type_ids]))
                logits = made.head(hidden[0], made.model.embeddings.word.weight)
                logits[one.hidden[0][0]].topk(made.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mlm", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="classification")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model, tokenizer = load_classifier(arguments.mlm), Tokenizer.from_directory(arguments.mlm)
    head = MaskedLanguageHead.from_tensors(load_extra_tensors(arguments.mlm, PREFIX), model.config)
    texts = read_dataset(arguments.data, get_task(arguments.task)).texts
    step = max(1, len(texts) // arguments.sentences)
    sentences = [tokenizer.split(text) for text in texts[::step][: arguments.sentences]]
    positions = [replaceable(words, stop_words("english")) for words in sentences]

    def batched(masks: int) -> Callable[[], object]:
        made = MaskedWords(model, head, tokenizer, masks_per_input=masks)
        return lambda: made.candidates(sentences, positions)

    reference = MaskedWords(model, head, tokenizer)
    ways: dict[str, Callable[[], object]] = {
        "one mask at a time": lambda: one_at_a_time(reference, sentences, positions),
        "batched, 1 mask an input": batched(1),
        "batched, 4 masks an input": batched(4),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.turns):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    first = next(iter(medians.values()))
    words = sum(len(wanted) for wanted in positions)
    print(f"{len(sentences)} sentences, {words} words, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        print(f"{name:28} {len(sentences) / median:8.1f} sentences/s   {first / median:5.2f} times")
    print(json.dumps({"sentences": len(sentences), "words": words, "seconds": medians}))


if __name__ == "__main__":
    main()
