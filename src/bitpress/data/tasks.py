"""What a task is: which columns hold text and label, which metric counts, how many tokens a text may have.

The GLUE tasks (Wang et al. 2019, arXiv:1804.07461, table 1) know all of it. The plain tasks ``classification``,
``regression``, ``multilabel``, ``ner`` (named entities), ``qa`` (answers in a context) and ``embedding`` find their
columns by common names, or are told by ``--text-column`` and its kin.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitpress.errors import DataError

# The kind of tasks whose words, not texts, have labels.
TOKEN_CLASSIFICATION = "token_classification"
# The kind of tasks whose answers are parts of a context.
QUESTION_ANSWERING = "question_answering"
# The kind of tasks whose texts have none, some or all of the labels.
MULTILABEL = "multilabel"
# The kind of tasks that ask for a vector of each text; a row of data is two texts on their own, maybe with a score.
EMBEDDING = "embedding"


@dataclass(frozen=True)
class Task:
    """One task.

    ``text_column``, ``pair_column`` and ``label_column`` are the names in the task's own layout; None means: find it
    by common names. ``metric`` is the headline among ``metrics``. ``labels`` are the class names in index order where
    the task fixes them. ``header`` is False where the task has files without a header line; ``columns`` then names
    their columns in order (the last ones may be absent from a row if nothing is read from them). ``threshold``, of
    MULTILABEL, is the probability from which on a label is predicted.
    """

    name: str
    # "classification" | "regression" | MULTILABEL | TOKEN_CLASSIFICATION | QUESTION_ANSWERING | EMBEDDING
    kind: str
    metric: str
    metrics: tuple[str, ...]
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    max_length: int = 128
    labels: tuple[str, ...] | None = None
    header: bool = True
    columns: tuple[str, ...] = ()
    threshold: float = 0.5


# Under this key of config.json a teacher that bitpress fine-tuned says what it was trained for; transformers keeps it.
TASK_KEY = "bitpress"

_TASKS = {
    task.name: task
    for task in (
        Task("classification", "classification", "accuracy", ("accuracy", "f1", "matthews")),
        Task("regression", "regression", "pearson", ("pearson", "spearman")),
        Task("multilabel", MULTILABEL, "micro_f1", ("micro_f1", "macro_f1")),
        Task("embedding", EMBEDDING, "spearman", ("spearman", "pearson")),
        Task("ner", TOKEN_CLASSIFICATION, "entity_f1", ("entity_f1", "entity_precision", "entity_recall")),
        # The length of Devlin et al. 2018 and all who followed.
        Task("qa", QUESTION_ANSWERING, "f1", ("f1", "exact_match"), max_length=384),
        Task(
            "glue/sst2",
            "classification",
            "accuracy",
            ("accuracy",),
            text_column="sentence",
            label_column="label",
            max_length=64,
            labels=("negative", "positive"),
        ),
        Task(
            "glue/cola",
            "classification",
            "matthews",
            ("matthews", "accuracy"),
            text_column="sentence",
            label_column="label",
            max_length=64,
            labels=("unacceptable", "acceptable"),
            header=False,
            columns=("source", "label", "mark", "sentence"),
        ),
        Task(
            "glue/mrpc",
            "classification",
            "f1",
            ("f1", "accuracy"),
            text_column="#1 String",
            pair_column="#2 String",
            label_column="Quality",
            labels=("not_equivalent", "equivalent"),
        ),
        Task(
            "glue/rte",
            "classification",
            "accuracy",
            ("accuracy",),
            text_column="sentence1",
            pair_column="sentence2",
            label_column="label",
            labels=("entailment", "not_entailment"),
        ),
        Task(
            "glue/stsb",
            "regression",
            "pearson",
            ("pearson", "spearman"),
            text_column="sentence1",
            pair_column="sentence2",
            label_column="score",
            # The labelled test file of the STS benchmark has no header and, in some rows, two licence columns more.
            header=False,
            columns=("genre", "filename", "year", "index", "score", "sentence1", "sentence2", "source1", "source2"),
        ),
    )
}

# The first of a kind is the plain one, for data whose layout nobody names.
_PLAIN = {task.kind: task for task in reversed(_TASKS.values())}
TASK_NAMES: tuple[str, ...] = tuple(_TASKS)


def get_task(name: str) -> Task:
    """The task called ``name`` (``TASK_NAMES``); DataError otherwise."""
    if name not in _TASKS:
        raise DataError(f"unknown task {name!r}; allowed: {', '.join(TASK_NAMES)}")
    return _TASKS[name]


def plain_task(kind: str) -> Task:
    """The plain task of a kind."""
    return _PLAIN[kind]
