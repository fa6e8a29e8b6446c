"""The process that holds one model and answers requests; started as ``python -m bitpress.bench.worker``.

A process of its own for each engine, so that thread pools, allocators and imports of one cannot touch the figures of
another. Requests and replies are JSON, one object a line, on stdin and the original stdout; everything that a library
prints goes to stderr. The worker ends when stdin does, so it cannot outlive its owner.

    -> {"op": "prepare", "batches": [{"ids": [[...], ...], "type_ids": [[...], ...]}, ...]}
    <- {}
    -> {"op": "burst", "first": 0, "warmup": 2, "count": 5}
    <- {"ms": [1.9, ...]}
    -> {"op": "logits", "batch": {"ids": ..., "type_ids": ...}}
    <- {"logits": [[0.3, -0.1], ...]}

With ``--once TEXT`` it loads tokenizer and model as a user would, runs the text, reports times and peak memory, ends.
With ``--texts`` it loads both too, and answers requests of whole lists of texts:

    -> {"op": "texts", "texts": ["...", ...]}
    <- {"ms": 812.5}

What is timed in a burst: lists of token ids in, logits in a numpy array out, the same for each engine; tokenization is
not. What is timed in ``texts``: from strings to answers.
"""

from __future__ import annotations

import time

_START = time.perf_counter()  # before numpy, torch and the model: `--once` counts their imports as loading

import argparse  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TextIO  # noqa: E402

from bitpress.bench.models import model_kind  # noqa: E402
from bitpress.sentence_model import read_sentence_model  # noqa: E402

Batch = dict[str, list[list[int]]]  # "ids" and "type_ids": B sequences of token ids, unpadded
Predictor = Callable[[list[str]], Any]  # from texts to an answer each

# Texts a batch where a predictor makes the batches itself; `bitpress.load(...)(texts)` has the same default.
TEXTS_A_BATCH = 32


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be timed: ``forward`` runs one batch; ``info`` names the engine for the report."""

    forward: Callable[[Batch], Any]
    info: dict[str, Any]


def load_artifact(path: Path, threads: int) -> LoadedModel:
    """The bitpress engine on an artifact."""
    import bitpress
    from bitpress.artifact import read_artifact
    from bitpress.runtime.engine import Engine

    engine = Engine.from_artifact(read_artifact(path), threads=threads)
    info = {"engine": f"bitpress {bitpress.__version__}", "isa": engine.isa}
    return LoadedModel(lambda batch: engine.forward(batch["ids"], batch["type_ids"]), info)


def load_checkpoint(path: Path, threads: int) -> LoadedModel:
    """``transformers`` on a checkpoint, a classifier of texts or tokens, a model of question answering or an encoder of
    sentences: fp32, eval, inference mode, scaled-dot-product attention.

    The attention mask is given only where a batch is ragged: without it torch may choose its faster attention.
    """
    import torch
    import transformers

    torch.set_num_threads(threads)
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    names = " ".join(config.architectures or ())
    asks = "ForQuestionAnswering" in names
    sentences = read_sentence_model(path)
    kind: Any = transformers.AutoModelForSequenceClassification
    if asks:
        kind = transformers.AutoModelForQuestionAnswering
    elif "ForTokenClassification" in names:
        kind = transformers.AutoModelForTokenClassification
    elif sentences is not None:
        kind = transformers.AutoModel
    model = kind.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True).eval()
    # RoBERTa counts positions from what is not padding; DistilBERT and others take no token types.
    pad = model.config.pad_token_id or 0
    typed = getattr(model.config, "type_vocab_size", 1) > 1

    def forward(batch: Batch) -> Any:
        lengths = [len(ids) for ids in batch["ids"]]
        longest = max(lengths)
        inputs = {"input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids in batch["ids"]])}
        if typed:
            inputs["token_type_ids"] = torch.tensor([ids + [0] * (longest - len(ids)) for ids in batch["type_ids"]])
        if min(lengths) < longest:
            inputs["attention_mask"] = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        with torch.inference_mode():
            output = model(**inputs)
            if asks:
                return torch.stack([output.start_logits, output.end_logits], -1).numpy()
            if sentences is None:
                return output.logits.numpy()
            hidden = output.last_hidden_state
            if sentences.pooling == "cls":
                return hidden[:, 0].numpy()
            real = (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, :, None]
            if sentences.pooling == "max":
                return hidden.masked_fill(~real, -torch.inf).amax(dim=1).numpy()
            return ((hidden * real).sum(dim=1) / real.sum(dim=1)).numpy()

    info = {"engine": f"PyTorch {torch.__version__} fp32", "isa": torch.backends.cpu.get_cpu_capability().lower()}
    return LoadedModel(forward, info)


def burst(model: LoadedModel, batches: list[Batch], first: int, warmup: int, count: int) -> list[float]:
    """Milliseconds of ``count`` passes after ``warmup`` unmeasured ones; pass i runs batch (first + i) mod len."""
    for i in range(warmup):
        model.forward(batches[(first + i) % len(batches)])
    gc.collect()
    gc.disable()  # as timeit does: a collection inside a pass is not the model's time
    try:
        times = []
        for i in range(count):
            batch = batches[(first + i) % len(batches)]
            start = time.perf_counter_ns()
            model.forward(batch)
            times.append((time.perf_counter_ns() - start) / 1e6)
        return times
    finally:
        gc.enable()


def peak_resident_bytes() -> int:
    """The high-water mark of this process's resident set. VmHWM, because it starts anew at exec while getrusage's
    ru_maxrss keeps the mark of the parent that was forked."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line; peak memory can be measured on Linux only")


def artifact_predictor(path: Path, threads: int) -> Predictor:
    """An artifact as a user loads it."""
    import bitpress

    return bitpress.load(path, threads=threads)


def checkpoint_predictor(path: Path, threads: int) -> Predictor:
    """``transformers`` with its own tokenizer, texts cut to the tokenizer's ``model_max_length``."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)

    def encode(texts: list[str]) -> Batch:
        encoded = tokenizer(texts, truncation=True, return_token_type_ids=True, return_attention_mask=False)
        return {"ids": encoded["input_ids"], "type_ids": encoded["token_type_ids"]}

    return in_batches_of_like_length(encode, load_checkpoint(path, threads).forward)


def in_batches_of_like_length(encode: Callable[[list[str]], Batch], forward: Callable[[Batch], Any]) -> Predictor:
    """The usual practice of engines that pad: all texts are tokenized, then run sorted by length, longest first."""

    def predict(texts: list[str]) -> list[Any]:
        encoded = encode(texts)
        answers: list[Any] = [None] * len(texts)
        for pick in batches_of_like_length([len(ids) for ids in encoded["ids"]]):
            rows = forward({key: [sequences[i] for i in pick] for key, sequences in encoded.items()})
            for i, row in zip(pick, rows, strict=True):
                answers[i] = row
        return answers

    return predict


def batches_of_like_length(lengths: Sequence[int], size: int = TEXTS_A_BATCH) -> list[list[int]]:
    """Positions of ``lengths`` from the longest to the shortest, ``size`` at a time."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + size] for start in range(0, len(order), size)]


def run_once(predict: Predictor, text: str) -> dict[str, Any]:
    """Runs one text through what was just loaded.

    Returns ``load_ms`` (imports, tokenizer, model), ``first_ms`` (the first text) and ``peak_bytes``.
    """
    loaded = time.perf_counter()
    predict([text])
    done = time.perf_counter()
    return {
        "load_ms": (loaded - _START) * 1e3,
        "first_ms": (done - loaded) * 1e3,
        "peak_bytes": peak_resident_bytes(),
    }


def serve(model: LoadedModel, requests: TextIO, reply: Callable[[dict[str, Any]], None]) -> None:
    """Answers requests until the owner closes the pipe."""
    batches: list[Batch] = []
    for line in requests:
        request = json.loads(line)
        if request["op"] == "prepare":
            batches = request["batches"]
            reply({})
        elif request["op"] == "logits":
            reply({"logits": model.forward(request["batch"]).tolist()})
        else:
            reply({"ms": burst(model, batches, request["first"], request["warmup"], request["count"])})


def serve_texts(predict: Predictor, requests: TextIO, reply: Callable[[dict[str, Any]], None]) -> None:
    """Answers requests of texts until the owner closes the pipe."""
    for line in requests:
        texts = json.loads(line)["texts"]
        start = time.perf_counter()
        predict(texts)
        reply({"ms": (time.perf_counter() - start) * 1e3})


def main(
    arguments: list[str] | None = None,
    load: Callable[[Path, int], LoadedModel] | None = None,
    predictor: Callable[[Path, int], Predictor] | None = None,
) -> int:
    """Entry point of the process.

    ``load`` and ``predictor``: what makes a model, and a function of texts, of a path and a number of threads; other
    engines bring their own.
    """
    parser = argparse.ArgumentParser(prog="python -m bitpress.bench.worker")
    parser.add_argument("path", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--once", metavar="TEXT")
    parser.add_argument("--texts", action="store_true")
    options = parser.parse_args(arguments)

    # Ctrl-C reaches the whole process group; the owner decides what it means and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        if load is None or predictor is None:
            ours = model_kind(options.path) == "artifact"
            load = load_artifact if ours else load_checkpoint
            predictor = artifact_predictor if ours else checkpoint_predictor
        if options.once is not None:
            reply(run_once(predictor(options.path, options.threads), options.once))
        elif options.texts:
            predict = predictor(options.path, options.threads)
            reply({})
            serve_texts(predict, sys.stdin, reply)
        else:
            model = load(options.path, options.threads)
            reply({"info": model.info})
            serve(model, sys.stdin, reply)
    except Exception as error:  # the owner raises it again under its own type
        module = error.name if isinstance(error, ModuleNotFoundError) else None
        reply({"error": {"type": type(error).__name__, "message": str(error), "module": module}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
